r"""Non-local network, ResNet-50, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/nonlocal.py --workdir runs/voc_nonlocal

Variant: `smoke`. Recipe of mmsegmentation's schedule of 20,000 steps.
Reference: 76.20 mIoU on val at one scale, 77.12 with six scales and flips, from
ImageNet weights (mmsegmentation, VOC 2012 table, NonLocal R-50-D8 20k).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = recipes.mmseg_20k(dict(name="nonlocal", channels=512, reduction=2))
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
