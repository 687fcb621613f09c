r"""FCN-32s, VGG16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/fcn_vgg16.py --workdir runs/voc_fcn_vgg16

Variants: `fcn8s`, `smoke`. `fcn8s` adds the scores of pool3 and pool4, all
trained at once. Recipe of the first code: one image a step, the sum of its
pixels' losses (hence the rate), biases at twice the rate and without decay.
Here every image is padded to 512x512, without scaling.
Reference: 63.63 mIoU for FCN-32s, 65.40 for FCN-8s at once, on the part of val
that SBD leaves; 62.84, 64.74 in PyTorch (wkentaro/pytorch-fcn, table). From
ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 1  # Over all devices.
  config.total_steps = 100_000
  config.data = common.voc2012((512, 512), scale_range=(1.0, 1.0), flip=False)
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(name="vgg16", form="fcn"),
      head=dict(name="fcn_vgg", form="32s"),
  )
  config.init_from = common.random_weights()
  config.loss = dict(logits=common.cross_entropy(denominator="one"))
  config.optim = dict(
      learning_rate=1e-10,
      momentum=0.99,
      weight_decay=5e-4,
      weight_decay_mask="kernels",
      lr_multipliers={"*/bias": 2.0},
      schedule=dict(name="constant"),
  )
  config.eval = dict(protocol="mmseg", num_pictures=6)
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 4_000
  common.apply_variant(config, variant, {"fcn8s": _fcn8s, "smoke": _smoke})
  return config


def _fcn8s(config):
  config.model.head.form = "8s"


def _smoke(config):
  common.photographs_smoke(config)
  config.model.head.channels = 32
