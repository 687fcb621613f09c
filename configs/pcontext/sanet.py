r"""SANet, ResNet-50, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/sanet.py \
      --workdir runs/pcontext_sanet

Variants: `r101`, `effnetb7` (EfficientNet-B7), `epochs20` (instead of 80),
`fcn` (the baseline under the same recipe), `sa` (the mask loss alone), `sa_cat`
(without the dense branch), `stages` (the masks of each stage supervised too,
each with a quarter of the weight), `alpha00`, `alpha04`, `alpha06`, `alpha08`,
`alpha10` and `beta00`, `beta02`, `beta04`, `beta06`, `beta10` (the weights of
the categorical and of the dense loss in tenths, else 2 and 8), `smoke`. The
prediction is the sum of the dense and of the fourth attended
logits, as in the paper's text; `--config.model.head.prediction=masks` predicts
by what the mask loss supervises. Targets of the categories are the shares of
the classes; with `--config.loss.category.targets=presence` they are 0 or 1, as
EncNet's.
Reference: 51.9 mIoU, 79.3 pixel accuracy, 59 classes (the paper, Table 1, all
losses). From ImageNet weights.
Reference of `r101`: 53.0 mIoU, 80.6 pixel accuracy, 59 classes (the paper,
Table 1, all losses). From ImageNet weights.
Reference of `effnetb7`: 55.3 mIoU, 81.6 pixel accuracy, 59 classes (the paper,
Table 1, all losses). From ImageNet weights.
Reference of `fcn`: 43.2 mIoU, 74.5 pixel accuracy (the paper, Table 1). From
ImageNet weights.
Reference of `sa`: 49.2 mIoU, 77.2 pixel accuracy (the paper, Table 1). From
ImageNet weights.
Reference of `sa_cat`: 50.7 mIoU, 79.0 pixel accuracy (the paper, Table 1). From
ImageNet weights.
Reference of `epochs20`: 49.0 mIoU, 78.9 pixel accuracy (the paper, Table 3,
SANet50). From ImageNet weights.
Reference of `r101,epochs20`: 50.1 mIoU, 79.2 pixel accuracy (the paper, Table
3, SANet101). From ImageNet weights.
Reference of `fcn,epochs20`: 44.9 mIoU, 76.2 pixel accuracy (the paper, Table 3,
FCN50). From ImageNet weights.
Reference of `r101,fcn,epochs20`: 45.6 mIoU, 76.7 pixel accuracy (the paper,
Table 3, FCN101). From ImageNet weights.
Ours: not trained yet.
"""

import functools

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 80 epochs.
  config = common.run(batch_size=16, total_steps=24_990, eval_every=2_499)
  config.data = common.pcontext59((480, 480), long_side=520)
  recipes.sanet(config, depth=50, learning_rate=0.001)
  return common.apply_variants(config, variants, VARIANTS)


def _effnetb7(config):
  config.model.backbone = dict(
      name="efficientnet", variant="b7", output_stride=8
  )


def _epochs20(config):
  config.total_steps = 6_247
  config.eval_every = 1_250


def _fcn(config):
  common.use_head(config, dict(name="fcn"))


def _sa(config):
  _sa_cat(config)
  config.model.head.category_loss = False
  del config.loss.category


def _sa_cat(config):
  config.model.head.dense_loss = False
  del config.loss.dense


def _stages(config):
  config.model.head.supervise_stages = True
  for i in range(1, 5):
    config.loss[f"mask{i}"] = common.cross_entropy(
        f"stage{i}_mask_logits", 0.25
    )


def _weigh(term, tenths, config):
  config.loss[term].weight = tenths / 10


VARIANTS = {
    "r101": common.resnet101,
    "effnetb7": _effnetb7,
    "epochs20": _epochs20,
    "fcn": _fcn,
    "sa": _sa,
    "sa_cat": _sa_cat,
    "stages": _stages,
    **{
        f"{symbol}{tenths:02}": functools.partial(_weigh, term, tenths)
        for symbol, term, values in (
            ("alpha", "category", (0, 4, 6, 8, 10)),
            ("beta", "dense", (0, 2, 4, 6, 10)),
        )
        for tenths in values
    },
    "smoke": common.photographs_smoke,
}
