r"""EncNet, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/encnet.py --workdir runs/voc_encnet

Variant: `smoke`. Recipe of the authors' code (PyTorch-Encoding), in which the
long side of every image is 0.5 to 2 times 520; features of stages 2 and 3 join
the head's. Evaluations merge windows and views as there. Padding is ignored;
there it is background.
Reference: 82.9 mIoU on the test server without COCO, 85.9 with it, after 50
more epochs on VOC alone at a rate of 0.0001 (the paper, VOC 2012 results). From
ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 80 epochs.
  config = common.run(batch_size=16, total_steps=52_910, eval_every=5_291)
  config.data = common.voc2012((480, 480), long_side=520)
  recipes.pytorch_encoding(config, depth=101, lateral=True, learning_rate=0.001)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
