r"""DeepLabV2 (ASPP-L), VGG16, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/deeplabv2_vgg16.py \
      --workdir runs/voc_deeplabv2_vgg16

Variant: `smoke`. Rate, crop and schedule of the paper; without its dense CRF.
Reference: 71.6 mIoU on the test server with a dense CRF, without COCO (as
quoted by the SANet paper, Table 4). From ImageNet weights.
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
      backbone=dict(name="vgg16", form="deeplab"),
      head=dict(name="deeplabv2", channels=1024),
  )
  config.init_from = common.random_weights()
  config.loss = dict(logits=common.cross_entropy())
  config.optim = dict(
      learning_rate=0.001,
      momentum=0.9,
      weight_decay=5e-4,
      weight_decay_mask="kernels",
      lr_multipliers={"head": 10.0, "head/*/bias": 2.0},
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
  config.model.head.channels = 32
