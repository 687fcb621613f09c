r"""EncNet, ResNet-50, on your own images and labels.

  python train.py --config configs/custom.py --config.data.root=DIR \
      --workdir runs/mine

DIR holds classes.txt, a class per line in the order of the ids in the labels,
and images/{train,val}/ and labels/{train,val}/ with files of the same names, or
lists train.txt and val.txt with an image and its label per line. The first
start checks and packs it; `python -m ctxseg_jax.data.check --dataset custom
--source DIR` tells all faults at once.

Variants: `small` (a shallow network, for a CPU), `smoke` (4 steps of it). Write
them after a colon: `configs/custom.py:small`.

Recipe of the authors' code for data of about 10,000 images; with fewer, fewer
steps do. Nothing is pretrained here, which costs much on small data.
Ours: CamVid's folders as own data, `small` for 600 steps (7 minutes on 2 busy
CPU cores): test mIoU 23.42, where the most frequent class of each pixel reaches
17.0. The full recipe was not run.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 40_000
  config.data = common.custom(crop_size=(480, 480))
  config.model = dict(
      dtype="float32",
      align_corners=False,
      backbone=dict(name="resnet", depth=50, output_stride=8),
      head=dict(name="encnet"),
      aux_head=dict(name="fcn", stage="stage3"),
  )
  config.loss = dict(
      logits=common.cross_entropy(),
      se_logits=common.se_loss(),
      aux_logits=common.cross_entropy(0.2),
  )
  config.optim = dict(
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="all",
      lr_multipliers=dict(head=10.0, aux_head=10.0),
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(protocol="mmseg", batch_size_per_device=1, num_pictures=4)
  config.log_every = 20
  config.checkpoint_every = 1_000
  config.eval_every = 2_000

  common.apply_variant(config, variant, {"small": _small, "smoke": _smoke})
  return config


def _small(config):
  config.batch_size = 8
  config.total_steps = 2_000
  config.data.crop_size = (192, 192)
  config.model.backbone = dict(name="shallow", channels=64)
  config.model.head = dict(
      name="encnet", channels=64, num_codewords=32, dropout_rate=0.0
  )
  del config.model.aux_head
  del config.loss.aux_logits
  del config.optim.lr_multipliers.aux_head
  config.checkpoint_every = 200
  config.eval_every = 500


def _smoke(config):
  _small(config)
  common.smoke(config)
  config.data.crop_size = (48, 48)
