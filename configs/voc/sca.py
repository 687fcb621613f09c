r"""SCA on a dilated FCN, VGG16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/sca.py --workdir runs/voc_sca

Variants: `deeplabv2` (SCA on DeepLabV2), `smoke`. Rate, batch, epochs and size
of the summary of the paper that this follows; it gives no schedule, so poly.
Without batch norms the rate of 0.01 may be too high: 0.001 is the next to try.
Reference: none, the summary has no figures.
Reference of `deeplabv2`: none, the summary has no figures.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 50 epochs.
  config = common.run(batch_size=16, total_steps=33_068, eval_every=3_307)
  config.data = common.voc2012((512, 512))
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


def _deeplabv2(config):
  config.model.backbone.form = "deeplab"
  config.model.head.host = dict(name="deeplabv2", channels=1024)


VARIANTS = {"deeplabv2": _deeplabv2, "smoke": common.photographs_smoke}
