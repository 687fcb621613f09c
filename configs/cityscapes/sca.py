r"""SCA on a dilated FCN, VGG16, Cityscapes.

  python -m ctxseg_jax.data.prepare --dataset cityscapes --source cityscapes \
      --data_dir data
  python train.py --config configs/cityscapes/sca.py \
      --workdir runs/cityscapes_sca

Variant: `smoke`. Rate, batch, epochs and size of the summary of the paper that
this follows; it gives no schedule, so poly. Without batch norms the rate of
0.01 may be too high: 0.001 is the next to try.
Reference: none, the summary has no figures.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 50 epochs.
  config = common.run(batch_size=16, total_steps=9_296, eval_every=930)
  config.data = common.cityscapes((512, 512))
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(name="vgg16", form="dilated"),
      head=dict(
          name="sca",
          reading="features",
          host=dict(name="fcn_vgg", channel_dropout=False),
      ),
  )
  config.loss = dict(ce=common.cross_entropy("logits"))
  config.optim = common.sgd(0.01, weight_decay=5e-4)
  config.eval = common.evaluation(config.data)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
