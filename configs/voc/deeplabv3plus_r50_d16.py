r"""DeepLabV3+, ResNet-50, output stride 16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/deeplabv3plus_r50_d16.py \
      --workdir runs/voc_deeplabv3plus_r50_d16

Variant: `smoke`. The comparison of MFNet. Recipe of the code behind the MFNet
report, but for its Gaussian blur and padding that counts as background. The
rate is the code's 0.007, not the report's 0.07. It scores the centre of each
image only, ours all windows.
Reference: 68.98 mIoU (the MFNet report, which also has 40.45 M parameters where
its code builds 40.35). From ImageNet weights.
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
      head=dict(name="deeplabv3plus", rates=(6, 12, 18), align_corners=True),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      logits=common.cross_entropy(denominator="labelled_times_images")
  )
  config.optim = dict(
      learning_rate=0.007,
      momentum=0.9,
      weight_decay=5e-4,
      weight_decay_mask="all",
      lr_multipliers=dict(head=10.0),
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
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
