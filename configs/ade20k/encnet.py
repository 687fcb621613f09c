r"""EncNet, ResNet-50, output stride 8, ADE20K.

  python -m ctxseg_jax.data.prepare --dataset ade20k \
      --source ADEChallengeData2016 --data_dir data
  python train.py --config configs/ade20k/encnet.py --workdir runs/ade20k_encnet

Variants after the paper: its network `paper`, its recipe `paper_recipe` (120
epochs at a rate of 0.01, turned by up to 10 degrees), its baseline `fcn`; see
`configs/pcontext/encnet.py`.

Variants: `r101` (ResNet-101 on larger images), `smoke`. Recipe of the authors'
code (PyTorch-Encoding), in which the long side of every image is 0.5 to 2 times
520 (`r101`: 640); without lateral features, as on this data set. Evaluations
merge windows and views as there.
Reference: 41.11 mIoU, 79.73 pixel accuracy on val (the paper, ADE20K results);
41.5, 80.1 with six scales and flips in the code that this config follows. From
ImageNet weights.
Reference of `r101`: 44.65 mIoU, 81.69 pixel accuracy on val (the paper, ADE20K
results); 44.4, 81.3 with six scales and flips in the code that this config
follows. From ImageNet weights.
Reference of `fcn,paper_recipe`: 34.38 mIoU, 74.57 pixel accuracy on val (the
paper, ADE20K results). From ImageNet weights.
Ours: not trained yet.
"""

import functools

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 180 epochs.
  config = common.run(batch_size=16, total_steps=227_362, eval_every=12_631)
  config.data = common.ade20k((480, 480), long_side=520)
  recipes.pytorch_encoding(config, depth=50, lateral=False, learning_rate=0.004)
  return common.apply_variants(config, variants, VARIANTS)


def _r101(config):
  config.model.backbone.depth = 101
  config.data.crop_size = (576, 576)
  config.data.long_side = 640
  config.eval.update(crop_size=(576, 576), long_side=640)


VARIANTS = {
    "r101": _r101,
    "fcn": recipes.encnet_fcn,
    "paper": recipes.encnet_paper,
    "paper_recipe": functools.partial(
        recipes.encnet_paper_recipe,
        learning_rate=0.01,
        total_steps=151_575,  # 120 epochs.
    ),
    "smoke": common.photographs_smoke,
}
