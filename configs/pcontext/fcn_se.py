r"""FCN with squeeze-and-excitation, ResNet-50, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/fcn_se.py \
      --workdir runs/pcontext_fcn_se

Variants: `r101`, `smoke`. As `configs/pcontext/sanet.py:epochs20`, the recipe
of the paper's comparison.
Reference: 44.6 mIoU, 76.0 pixel accuracy (the SANet paper, Table 3, FCN50-SE).
From ImageNet weights.
Reference of `r101`: 45.7 mIoU, 76.6 pixel accuracy (the SANet paper, Table 3,
FCN101-SE). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs.pcontext import sanet


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = sanet.get_config("epochs20")
  common.use_head(config, dict(name="fcn_se", squeeze_channels=4))
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"r101": common.resnet101, "smoke": common.photographs_smoke}
