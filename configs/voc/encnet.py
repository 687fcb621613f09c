r"""EncNet, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/encnet.py --workdir runs/voc_encnet

The paper has figures of the test server only. With COCO it is a chain, each run
from the work dir of the one before (`coco_voc21` is prepared from COCO 2017):

  python train.py --config configs/voc/encnet.py:coco --workdir runs/encnet_coco
  python train.py --config configs/voc/encnet.py --workdir runs/encnet_aug \
      --config.init_from.source=ctxseg_jax \
      --config.init_from.path=runs/encnet_coco
  python train.py --config configs/voc/encnet.py:finetune \
      --workdir runs/encnet_voc --config.init_from.source=ctxseg_jax \
      --config.init_from.path=runs/encnet_aug

Its runs are `coco` (30 epochs at a rate of 0.004, as in the code), none, and
`finetune` (50 epochs on VOC's own train and val at 0.0001; the scores on val
that it logs are of images it is trained on). Variants after the paper: its
network `paper`, its recipe `paper_recipe` (50 epochs, turned by up to 10
degrees); see `configs/pcontext/encnet.py`.

Variant: `smoke`. Recipe of the authors' code (PyTorch-Encoding), in which the
long side of every image is 0.5 to 2 times 520; features of stages 2 and 3 join
the head's. Evaluations merge windows and views as there. Padding is ignored;
there it is background.
Reference: 82.9 mIoU on the test server without COCO (the paper, VOC 2012
results). From ImageNet weights.
Reference of `finetune`: 85.9 mIoU on the test server (the paper, VOC 2012
results with COCO), at the end of the chain.
Ours: not trained yet.
"""

import functools

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


def _coco(config):
  # 30 epochs of about 92,500 images.
  config.total_steps = 173_440
  config.eval_every = 17_344
  config.data.name = "coco_voc21"
  config.data.train_split = "train"
  config.optim.learning_rate = 0.004


def _finetune(config):
  config.total_steps = 9_103  # 50 epochs of 2,913 images.
  config.eval_every = 910
  config.data.train_split = "trainval"
  config.optim.learning_rate = 0.0001


VARIANTS = {
    "coco": _coco,
    "finetune": _finetune,
    "paper": recipes.encnet_paper,
    "paper_recipe": functools.partial(
        recipes.encnet_paper_recipe,
        learning_rate=0.001,
        total_steps=33_069,  # 50 epochs.
    ),
    "smoke": common.photographs_smoke,
}
