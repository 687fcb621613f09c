r"""SANet, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/sanet.py --workdir runs/voc_sanet

The paper has figures of the test server only; `predict.py --submission` writes
what it takes. With COCO it is a chain, each run from the work dir of the one
before (`coco_voc21` is prepared from COCO 2017):

  python train.py --config configs/voc/sanet.py:coco --workdir runs/sanet_coco
  python train.py --config configs/voc/sanet.py --workdir runs/sanet_aug \
      --config.init_from.source=ctxseg_jax \
      --config.init_from.path=runs/sanet_coco
  python train.py --config configs/voc/sanet.py:finetune \
      --workdir runs/sanet_voc --config.init_from.source=ctxseg_jax \
      --config.init_from.path=runs/sanet_aug

Variants: `coco` (the chain's first run, whose length the paper does not give:
30 epochs, as EncNet's code), `finetune` (its last, 50 epochs "on the validation
set"; the scores on val that it logs are of images it is trained on), `fcn` and
`deeplabv3plus` (the paper's comparison under the same recipe), `smoke`.
Prediction and categories are as in `configs/pcontext/sanet.py`.
Reference: 83.2 mIoU on the test server without COCO, 204.7 G
multiply-accumulates, 55.5 M parameters (the paper, Tables 4 and 6); the two
last follow from no reading of its text. From ImageNet weights.
Reference of `finetune`: 86.1 mIoU on the test server (the paper, Table 5), at
the end of the chain.
Reference of `fcn`: 78.7 mIoU on the test server, 162.7 G multiply-accumulates,
42.6 M parameters (the paper, Table 6); the two last are the backbone's alone,
at 480x480. From ImageNet weights.
Reference of `deeplabv3plus`: 81.5 mIoU on the test server, 235.6 G
multiply-accumulates, 59.5 M parameters (the paper, Table 6), at 480x480. From
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
  recipes.sanet(config, depth=101, learning_rate=0.0001)
  return common.apply_variants(config, variants, VARIANTS)


def _coco(config):
  # 30 epochs of about 92,500 images.
  config.total_steps = 173_440
  config.eval_every = 17_344
  config.data.name = "coco_voc21"
  config.data.train_split = "train"


def _finetune(config):
  config.total_steps = 4_528  # 50 epochs of 1,449 images.
  config.eval_every = 1_132
  config.data.train_split = "val"


def _fcn(config):
  common.use_head(config, dict(name="fcn"))


def _deeplabv3plus(config):
  common.use_head(config, dict(name="deeplabv3plus", rates=(12, 24, 36)))


VARIANTS = {
    "coco": _coco,
    "finetune": _finetune,
    "fcn": _fcn,
    "deeplabv3plus": _deeplabv3plus,
    "smoke": common.photographs_smoke,
}
