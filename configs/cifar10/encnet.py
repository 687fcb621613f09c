r"""EncNet of 14 layers, 64 wide, 16 codewords, CIFAR-10.

  python -m ctxseg_jax.data.prepare --dataset cifar10 --source DIR \
      --data_dir data
  python train.py --config configs/cifar10/encnet.py \
      --workdir runs/cifar10_encnet

Variants: `32k64d` (32 codewords), `32k128d` (32 codewords, 128 wide), the two
baselines `resnet` and `se_resnet`, `smoke` (16 wide, on drawn images: its
accuracy is not one on CIFAR-10). Recipe of the authors' code, batch norm over
the whole batch. In `32k128d` smoothing factors are drawn anew at every step,
and -0.5 in evaluation, as in the authors' model of this name. The code of
`se_resnet` is not published: trunk of the EncNet, reduction 16, which has the
published number of parameters. The error of each logged training batch is
logged as `loss/error`, without weight. The test split chooses `best`, so report
`eval.py --checkpoint last`.
Reference: 3.96 test error, 3.5 M parameters (the paper, CIFAR-10 table).
Reference of `32k64d`: a curve only, below that of the SE-ResNet (the paper,
CIFAR-10 figure).
Reference of `32k128d`: 3.45 test error, 16.8 M parameters (the paper, CIFAR-10
table); 3.35 for the checkpoint that the authors released.
Reference of `resnet`: 4.93 test error, 2.7 M parameters (the paper, CIFAR-10
table).
Reference of `se_resnet`: 4.65 test error, 2.8 M parameters (the paper, CIFAR-10
table).
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.run(
      batch_size=128,
      total_steps=234_375,  # 600 epochs.
      log_every=125,
      checkpoint_every=3_125,
      eval_every=3_125,  # 8 epochs.
  )
  config.data = common.cifar10()
  config.model = dict(
      dtype="float32",
      align_corners=False,
      backbone=dict(
          name="cifar_resnet", block="encoding", widen=4, num_codewords=16
      ),
      head=dict(name="pooled", stage="stage3"),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits"),
      error=dict(output="logits", loss="error_rate", weight=0.0),
  )
  config.optim = common.sgd(
      0.1, weight_decay=1e-4, schedule=dict(name="cosine", end_value=0.0)
  )
  config.eval = dict(batch_size_per_device=100, num_pictures=4)
  return common.apply_variants(config, variants, VARIANTS)


def _32k64d(config):
  config.model.backbone.num_codewords = 32


def _32k128d(config):
  config.model.backbone.update(block="encoding_drop", widen=8, num_codewords=32)


def _resnet(config):
  config.model.backbone = dict(
      name="cifar_resnet", block="preactivation", widen=4
  )


def _se_resnet(config):
  _resnet(config)
  config.model.backbone.block = "squeeze_excitation"


def _smoke(config):
  common.smoke(config)
  config.data.name = "cifar10_stand_in"
  config.data.eval_split = "test[:100]"
  config.model.backbone.widen = 1


VARIANTS = {
    "32k64d": _32k64d,
    "32k128d": _32k128d,
    "resnet": _resnet,
    "se_resnet": _se_resnet,
    "smoke": _smoke,
}
