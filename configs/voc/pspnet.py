r"""PSPNet, ResNet-50, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/pspnet.py --workdir runs/voc_pspnet

Variant: `smoke`. Recipe of hszhao/semseg; the scores are those of its windows,
averaged.
Reference: 77.05 mIoU on val at one scale, 78.02 with six scales, both with
flips, from ImageNet weights (semseg, VOC 2012 table, PSPNet50).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 50 epochs.
  config = common.run(batch_size=16, total_steps=33_068, eval_every=6_614)
  config.data = common.voc2012((473, 473), rotation=10.0)
  recipes.semseg(config, depth=50, long_side=512)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
