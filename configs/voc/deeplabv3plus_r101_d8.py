r"""DeepLabV3+, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/deeplabv3plus_r101_d8.py \
      --workdir runs/voc_deeplabv3plus_r101_d8

Variant: `smoke`. The comparison of EMANet: its recipe, see
`configs/voc/emanet_r101_d8.py`.
Reference: 79.35 mIoU on val at one scale, 80.57 with six scales and flips, from
ImageNet weights (EMANet's code, VOC 2012 table); 81.5 on the test server, 235.6
G multiply-accumulates at 480x480, 59.5 M parameters (the SANet paper, Table 6).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 30_000
  config.data = common.voc2012((513, 513))
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      norm=dict(momentum=0.9997),
      backbone=dict(
          name="resnet",
          depth=101,
          output_stride=8,
          stem="deep64",
          dilation="multi_grid_contracted",
      ),
      head=dict(name="deeplabv3plus", rates=(12, 24, 36), align_corners=True),
  )
  config.init_from = common.random_weights()
  config.loss = dict(logits=common.cross_entropy(**common.ALL_PIXELS))
  config.optim = dict(
      learning_rate=0.009,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="kernels",
      lr_multipliers={"*/bias": 2.0},
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(protocol="mmseg", num_pictures=6)
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 5_000
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
