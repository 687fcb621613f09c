r"""DeepLabV3+, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/deeplabv3plus.py \
      --workdir runs/voc_deeplabv3plus

Variants: `r50_d16` (the comparison of MFNet, see `configs/voc/mfnet.py`),
`r50_d16_report` (with the `report_recipe` of MFNet), `smoke`. The comparison of
EMANet: the recipe of `configs/voc/emanet.py`.
Reference: 79.35 mIoU on val at one scale, 80.57 with six scales and flips, from
ImageNet weights (EMANet's code, VOC 2012 table); 81.5 on the test server, 235.6
G multiply-accumulates at 480x480, 59.5 M parameters (the SANet paper, Table 6).
Reference of `r50_d16`: 68.98 mIoU (the MFNet report, which also has 40.45 M
parameters where its code builds 40.35). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes
from configs.voc import emanet


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = emanet.get_config()
  config.model.head = dict(name="deeplabv3plus", rates=(12, 24, 36))
  return common.apply_variants(config, variants, VARIANTS)


def _r50_d16(config):
  recipes.mfnet_report(config, dict(name="deeplabv3plus", rates=(6, 12, 18)))


def _r50_d16_report(config):
  _r50_d16(config)
  recipes.mfnet_report_recipe(config)


VARIANTS = {
    "r50_d16": _r50_d16,
    "r50_d16_report": _r50_d16_report,
    "smoke": common.photographs_smoke,
}
