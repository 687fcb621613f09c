r"""SE-ResNet of 14 layers, 64 wide, CIFAR-10: the other baseline of EncNet.

  python -m ctxseg_jax.data.prepare --dataset cifar10 --source DIR \
      --data_dir data
  python train.py --config configs/cifar10/se_resnet14_64d.py \
      --workdir runs/cifar10_se_resnet14_64d

Variant: `smoke` (16 wide, on drawn images: its accuracy says nothing about
CIFAR-10). Recipe of the authors' code, batch norm over the whole batch. The
test split chooses `best`, so report `eval.py --checkpoint last`.
The network's code is not published: trunk of the EncNet, reduction 16, which
has the published number of parameters.
Reference: 4.65 test error, 2.8 M parameters (the paper, CIFAR-10 table).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 128  # Over all devices.
  config.total_steps = 234_375  # 600 epochs.
  config.data = common.cifar10()
  config.model = dict(
      dtype="float32",
      align_corners=False,
      backbone=dict(name="cifar_resnet", block="squeeze_excitation", widen=4),
      head=dict(name="pooled", stage="stage3"),
  )
  config.loss = dict(logits=common.cross_entropy())
  config.optim = dict(
      learning_rate=0.1,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="all",
      schedule=dict(name="cosine", end_value=0.0),
  )
  config.eval = dict(batch_size_per_device=100, num_pictures=4)
  config.log_every = 125
  config.checkpoint_every = 3_125
  config.eval_every = 3_125  # 8 epochs.
  common.apply_variant(config, variant, {"smoke": common.cifar10_smoke})
  return config
