r"""Double attention (A2-Nets), ResNet-50, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/a2net.py --workdir runs/voc_a2net

Variant: `smoke`. The block stands where mmsegmentation's non-local network has
its own, and so does the recipe: the paper classifies images and videos.
Reference: none is published for segmentation; the non-local network of
`voc/nonlocal.py` has 76.20 mIoU on val at one scale.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = recipes.mmseg_20k(
      dict(name="double_attention", channels=512, reduction=4)
  )
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
