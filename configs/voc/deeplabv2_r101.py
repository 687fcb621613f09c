r"""DeepLabV2, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/deeplabv2_r101.py \
      --workdir runs/voc_deeplabv2_r101

Variant: `smoke`. Recipe of kazuto1011/deeplab-pytorch, with the rate changed at
every step instead of every tenth, and batches of 10 instead of two of 5: three
scales in training, fused by their maximum, each supervised at its own size. Its
batch norms are frozen, scales and offsets too. No dense CRF.
Reference: 76.35 mIoU on val, 77.69 with a dense CRF, from COCO weights (the
paper, as in kazuto1011/deeplab-pytorch).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 10  # Over all devices.
  config.total_steps = 20_000
  config.data = common.voc2012((321, 321), scale_range=(0.5, 1.5))
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      scales=(1.0, 0.75, 0.5),
      upsample_in_training=False,
      norm=dict(frozen=True),
      backbone=dict(
          name="resnet",
          depth=101,
          output_stride=8,
          stem="7x7",
          dilation="uniform",
          stride_in_1x1=True,
          ceil_pool=True,
      ),
      head=dict(name="deeplabv2"),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      logits=common.cross_entropy(),
      scale100_logits=common.cross_entropy(),
      scale75_logits=common.cross_entropy(),
      scale50_logits=common.cross_entropy(),
  )
  config.optim = dict(
      learning_rate=2.5e-4,
      momentum=0.9,
      weight_decay=5e-4,
      weight_decay_mask="kernels",
      lr_multipliers={"head": 10.0, "head/*/bias": 2.0, "backbone/*/bn/*": 0.0},
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(protocol="mmseg", num_pictures=6)
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 5_000
  common.apply_variant(config, variant, {"smoke": _smoke})
  return config


def _smoke(config):
  common.photographs_smoke(config)
  config.model.backbone.depth = 50  # Smaller ones have no 1x1 to stride.
