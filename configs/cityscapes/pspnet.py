r"""PSPNet, ResNet-50, output stride 8, Cityscapes.

  python -m ctxseg_jax.data.prepare --dataset cityscapes --source cityscapes \
      --data_dir data
  python train.py --config configs/cityscapes/pspnet.py \
      --workdir runs/cityscapes_pspnet

Variant: `smoke`. Recipe of hszhao/semseg; the scores are those of its windows,
averaged.
Reference: 77.30 mIoU on val at one scale, 78.38 with six scales, both with
flips, from ImageNet weights (semseg, Cityscapes table, PSPNet50).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 200 epochs.
  config = common.run(batch_size=16, total_steps=37_187, eval_every=3_719)
  config.data = common.cityscapes((713, 713), rotation=10.0)
  recipes.semseg(config, depth=50, long_side=None)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
