r"""PSPNet, ResNet-101, output stride 8, ADE20K.

  python -m ctxseg_jax.data.prepare --dataset ade20k \
      --source ADEChallengeData2016 --data_dir data
  python train.py --config configs/ade20k/pspnet.py --workdir runs/ade20k_pspnet

Variant: `smoke`. Recipe of hszhao/semseg, but for its Gaussian blur; the scores
are those of its windows, averaged.
Reference: 43.10 mIoU on val at one scale, 44.15 with six scales, both with
flips, from ImageNet weights (semseg, ADE20K table, PSPNet101).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.experiment(
      batch_size=16,
      total_steps=126_312,  # 100 epochs.
      eval_every=12_632,
  )
  config.data = common.ade20k((473, 473), rotation=10.0)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(101, stem="deep64", dilation="uniform"),
      head=dict(name="pspnet", channels=512),
      aux_head=common.fcn_aux(256),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits"),
      aux=common.cross_entropy("aux_logits", 0.4),
  )
  config.optim = common.sgd(
      0.01, weight_decay=1e-4, lr_multipliers=dict(head=10.0, aux_head=10.0)
  )
  config.eval = common.evaluation(config.data, "slide", long_side=512)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
