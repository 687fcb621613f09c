r"""PSPNet, ResNet-101, output stride 8, ADE20K.

  python -m ctxseg_jax.data.prepare --dataset ade20k \
      --source ADEChallengeData2016 --data_dir data
  python train.py --config configs/ade20k/pspnet.py --workdir runs/ade20k_pspnet

Variant: `smoke`. Recipe of hszhao/semseg; the scores are those of its windows,
averaged.
Reference: 43.10 mIoU on val at one scale, 44.15 with six scales, both with
flips, from ImageNet weights (semseg, ADE20K table, PSPNet101).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 100 epochs.
  config = common.run(batch_size=16, total_steps=126_312, eval_every=12_632)
  config.data = common.ade20k((473, 473), rotation=10.0)
  recipes.semseg(config, depth=101, long_side=512)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
