r"""MFNet, ResNet-50, output stride 16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/mfnet.py --workdir runs/voc_mfnet

Variants after the report: `report`, its network (the product of the factors
takes the place of the features from the first step, is to equal them from the
tenth epoch on, and both factors are drawn from N(0, 1)); `report_recipe` (a
rate of 0.07, images without augmentation: their centres); `lambda00`,
`lambda10` (the weight of the reconstruction loss in tenths, else 1). DeepLabV3+
and EMANet under the same recipe are `r50_d16` of their configs.

Variant: `smoke`. Recipe of the code behind the MFNet report, but for padding
that counts as background. The rate is the code's 0.007, not the report's 0.07.
It scores the centre of each image only, ours all windows. For 10 epochs the
factors are not used; then the prediction is made from their product and the
features, both learned.
Reference: 68.97 mIoU, 29.73 M parameters (the MFNet report). As published its
low-rank path never ran, so that this network is not what that figure is of.
From ImageNet weights.
Ours: not trained yet.
"""

import functools

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = config_dict.ConfigDict()
  recipes.mfnet_report(config, dict(name="mfnet", rank=64, map_size=(33, 33)))
  config.loss.reconstruction = dict(
      output="reconstruction_residual",
      loss="mean_squared_residual",
      weight=0.025,  # 0.1, divided by the batch size like the other.
      start_step=3_660,
  )
  config.switches = dict(low_rank=3_660)  # 10 epochs.
  # The factors learn at the backbone's rate.
  config.optim.lr_multipliers["head/[yz]"] = 0.1
  return common.apply_variants(config, variants, VARIANTS)


def _report(config):
  config.model.head.update(
      factor_init="normal", decodes="low_rank", reconstructs="features"
  )
  config.switches.low_rank = 0


def _weigh(tenths, config):
  config.loss.reconstruction.weight = tenths / 10 / config.batch_size


def _smoke(config):
  common.photographs_smoke(config)
  config.model.head.map_size = (4, 4)
  config.switches.low_rank = min(2, config.switches.low_rank)
  config.loss.reconstruction.start_step = 2


VARIANTS = {
    "report": _report,
    "report_recipe": recipes.mfnet_report_recipe,
    "lambda00": functools.partial(_weigh, 0),
    "lambda10": functools.partial(_weigh, 10),
    "smoke": _smoke,
}
