r"""MFNet, ResNet-50, output stride 16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/mfnet_r50_d16.py \
      --workdir runs/voc_mfnet_r50_d16

Variant: `smoke`. Recipe of the code behind the MFNet report, but for its
Gaussian blur and padding that counts as background. The rate is the code's
0.007, not the report's 0.07. It scores the centre of each image only, ours all
windows. For 10 epochs the factors are not used; then the prediction is made
from their product and the features, both learned.
Reference: 68.97 mIoU, 29.73 M parameters (the MFNet report). As published its
low-rank path never ran, so that this network is not what that figure is of.
From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 4  # Over all devices.
  config.total_steps = 18_300  # 50 epochs of 1,464 images.
  config.data = common.voc2012((513, 513), train_split="train", short_side=513)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=dict(
          name="resnet",
          depth=50,
          output_stride=16,
          stem="7x7",
          dilation="multi_grid",
      ),
      head=dict(name="mfnet", rank=64, map_size=(33, 33), align_corners=True),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      logits=common.cross_entropy(denominator="labelled_times_images"),
      reconstruction_residual=dict(
          # 0.1, divided by the batch size like the other.
          loss="mean_squared_residual",
          weight=0.025,
          start_step=3_660,
      ),
  )
  config.switches = dict(low_rank=3_660)  # 10 epochs.
  config.optim = dict(
      learning_rate=0.007,
      momentum=0.9,
      weight_decay=5e-4,
      weight_decay_mask="all",
      # The factors learn at the backbone's rate.
      lr_multipliers={"head": 10.0, "head/[yz]": 0.1},
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(
      protocol="mmseg",
      mode="slide",
      crop_size=(513, 513),
      short_side=513,
      num_pictures=6,
  )
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 1_830
  common.apply_variant(config, variant, {"smoke": _smoke})
  return config


def _smoke(config):
  common.photographs_smoke(config)
  config.model.head.map_size = (4, 4)
  config.switches.low_rank = 2
  config.loss.reconstruction_residual.start_step = 2
