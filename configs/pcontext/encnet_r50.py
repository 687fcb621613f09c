r"""EncNet, ResNet-50, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/encnet_r50.py \
      --workdir runs/pcontext_encnet_r50

Variant: `smoke`. Recipe of the authors' code (PyTorch-Encoding), in which the
long side of every image is 0.5 to 2 times 520; features of stages 2 and 3 join
the head's. Theirs multiplies the class scores of views after exp, ours averages
probabilities.
Reference: 49.2 mIoU, 79.4 pixel accuracy (the paper, PASCAL-Context ablation,
encoding and SE-loss); 51.0, 79.2 with six scales and flips in the code that
this config follows. From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "", depth: int = 50) -> config_dict.ConfigDict:
  """Returns the config of a variant; for a ResNet of another depth, too."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 24_990  # 80 epochs.
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
      head=dict(
          name="encnet",
          channels=512,
          num_codewords=32,
          lateral=True,
          channel_dropout=False,
      ),
      aux_head=dict(
          name="fcn", stage="stage3", channels=256, channel_dropout=False
      ),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      logits=common.cross_entropy(),
      se_logits=common.se_loss(),
      aux_logits=common.cross_entropy(0.2),
  )
  config.optim = dict(
      learning_rate=0.001,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="all",
      lr_multipliers=dict(head=10.0, aux_head=10.0),
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
  config.eval_every = 2_499
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
