r"""FCN with squeeze-and-excitation, ResNet-50, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/fcn_se_r50.py \
      --workdir runs/pcontext_fcn_se_r50

Variant: `smoke`. As `configs/pcontext/sanet_r50.py` for the 20 epochs of the
paper's comparison.
Reference: 44.6 mIoU, 76.0 pixel accuracy (the SANet paper, Table 3, FCN50-SE).
From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "", depth: int = 50) -> config_dict.ConfigDict:
  """Returns the config of a variant; for a ResNet of another depth, too."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 6_247  # 20 epochs.
  config.data = common.pcontext59((480, 480), long_side=520)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=dict(
          name="resnet",
          depth=depth,
          output_stride=8,
          stem="deep64",
          dilation="contracted",
      ),
      head=dict(name="fcn_se", squeeze_channels=4),
  )
  config.init_from = common.random_weights()
  config.loss = dict(logits=common.cross_entropy())
  config.optim = dict(
      learning_rate=0.001,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="all",
      lr_multipliers=dict(head=10.0),
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(
      protocol="mmseg",
      mode="slide",
      crop_size=(480, 480),
      long_side=520,
      num_pictures=6,
  )
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 1_250
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
