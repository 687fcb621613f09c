r"""PSPNet, ResNet-50, output stride 8, Cityscapes.

  python -m ctxseg_jax.data.prepare --dataset cityscapes --source cityscapes \
      --data_dir data
  python train.py --config configs/cityscapes/pspnet_r50.py \
      --workdir runs/cityscapes_pspnet_r50

Variant: `smoke`. Recipe of hszhao/semseg, but for its Gaussian blur; the scores
are those of its windows, averaged.
Reference: 77.30 mIoU on val at one scale, 78.38 with six scales, both with
flips, from ImageNet weights (semseg, Cityscapes table, PSPNet50).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 37_187  # 200 epochs.
  config.data = common.cityscapes((713, 713), rotation=10.0)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=dict(
          name="resnet",
          depth=50,
          output_stride=8,
          stem="deep64",
          dilation="uniform",
      ),
      head=dict(name="pspnet", channels=512, align_corners=True),
      aux_head=dict(name="fcn", stage="stage3", channels=256),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      logits=common.cross_entropy(), aux_logits=common.cross_entropy(0.4)
  )
  config.optim = dict(
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="all",
      lr_multipliers=dict(head=10.0, aux_head=10.0),
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(
      protocol="mmseg",
      mode="slide",
      crop_size=(713, 713),
      num_pictures=6,
  )
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 3_719
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
