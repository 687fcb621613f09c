r"""FCN with squeeze-and-excitation, ResNet-50, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/fcn_se.py \
      --workdir runs/pcontext_fcn_se

Variants: `r101`, `smoke`. As `configs/pcontext/sanet.py` for the 20 epochs of
the paper's comparison.
Reference: 44.6 mIoU, 76.0 pixel accuracy (the SANet paper, Table 3, FCN50-SE).
From ImageNet weights.
Reference of `r101`: 45.7 mIoU, 76.6 pixel accuracy (the SANet paper, Table 3,
FCN101-SE). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 20 epochs.
  config = common.run(batch_size=16, total_steps=6_247, eval_every=1_250)
  config.data = common.pcontext59((480, 480), long_side=520)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(50, stem="deep64", dilation="contracted"),
      head=dict(name="fcn_se", squeeze_channels=4),
  )
  config.loss = dict(ce=common.cross_entropy("logits"))
  config.optim = common.sgd(
      0.001, weight_decay=1e-4, lr_multipliers=dict(head=10.0)
  )
  config.eval = common.evaluation(config.data, "slide")
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"r101": common.resnet101, "smoke": common.photographs_smoke}
