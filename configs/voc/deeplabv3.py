r"""DeepLabV3, ResNet-50, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/deeplabv3.py --workdir runs/voc_deeplabv3

Variant: `smoke`. Recipe of mmsegmentation's schedule of 20,000 steps.
Reference: 76.17 mIoU on val at one scale, 77.42 with six scales and flips, from
ImageNet weights (mmsegmentation, VOC 2012 table, DeepLabV3 R-50-D8 20k).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = recipes.mmseg_20k(
      dict(
          name="deeplabv3",
          channels=512,
          rates=(12, 24, 36),
          project_kernel_size=3,
          aspp_dropout_rate=0.0,
          dropout_rate=0.1,
          channel_dropout=True,
      )
  )
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
