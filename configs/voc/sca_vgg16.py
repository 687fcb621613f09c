r"""SCA on a dilated FCN, VGG16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/sca_vgg16.py --workdir runs/voc_sca_vgg16

Variant: `smoke`. Rate, batch, epochs and size of the summary of the paper that
this follows; it gives no schedule, so poly. Without batch norms the rate of
0.01 may be too high: 0.001 is the next to try.
Reference: none, the summary has no figures.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 33_068  # 50 epochs.
  config.data = common.voc2012((512, 512))
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(name="vgg16", form="dilated"),
      head=dict(
          name="sca",
          reading="features",
          host=dict(name="fcn_vgg", channel_dropout=False),
      ),
  )
  config.init_from = common.random_weights()
  config.loss = dict(logits=common.cross_entropy())
  config.optim = dict(
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=5e-4,
      weight_decay_mask="all",
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(protocol="mmseg", num_pictures=6)
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 3_307
  common.apply_variant(config, variant, {"smoke": _smoke})
  return config


def _smoke(config):
  common.photographs_smoke(config)
  config.model.head.host.channels = 32
