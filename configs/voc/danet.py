r"""DANet, ResNet-50, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/danet.py --workdir runs/voc_danet

Variant: `smoke`. Recipe of mmsegmentation's schedule of 20,000 steps.
Reference: 74.45 mIoU on val at one scale, 75.69 with six scales and flips, from
ImageNet weights (mmsegmentation, VOC 2012 table, DANet R-50-D8 20k).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = recipes.mmseg_20k(
      dict(name="danet", channels=512, query_channels=64)
  )
  config.loss.update(
      common.over_all_pixels(
          position=common.cross_entropy("position_logits"),
          channel=common.cross_entropy("channel_logits"),
      )
  )
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
