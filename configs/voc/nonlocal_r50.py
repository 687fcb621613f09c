r"""Non-local network, ResNet-50, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/nonlocal_r50.py \
      --workdir runs/voc_nonlocal_r50

Variant: `smoke`. Recipe of mmsegmentation's schedule of 20,000 steps; it also
distorts colours and redraws crops that one class fills, which is not done here.
Reference: 76.20 mIoU on val at one scale, 77.12 with six scales and flips, from
ImageNet weights (mmsegmentation, VOC 2012 table, NonLocal R-50-D8 20k).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 20_000
  config.data = common.voc2012((512, 512), short_side=512, long_side=2048)
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(
          name="resnet",
          depth=50,
          output_stride=8,
          stem="deep32",
          dilation="contracted",
      ),
      head=dict(name="nonlocal", channels=512, reduction=2),
      aux_head=dict(name="fcn", stage="stage3", channels=256),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      logits=common.cross_entropy(**common.ALL_PIXELS),
      aux_logits=common.cross_entropy(0.4, **common.ALL_PIXELS),
  )
  config.optim = dict(
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=5e-4,
      weight_decay_mask="all",
      schedule=dict(name="poly", power=0.9, end_value=1e-4),
  )
  config.eval = dict(
      protocol="mmseg", short_side=512, long_side=2048, num_pictures=6
  )
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 5_000
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
