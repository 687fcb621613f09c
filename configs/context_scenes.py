r"""Every context head on context scenes: one backbone, data and schedule.

  python train.py --config configs/context_scenes.py:danet \
      --workdir runs/context_scenes/danet

Variants: `fcn`, `fcn_aux`, `pspnet`, `pspnet_aux`, `deeplabv3`,
`deeplabv3_aux`, `deeplabv3plus`, `nonlocal`, `nonlocal_aux`,
`double_attention`, `emanet`, `danet`, `danet_plain`, `encnet`,
`encnet_plain`, `smoke`. `_aux` adds an auxiliary FCN on stage 3, `_plain`
takes the paper's extra supervision away. Without a variant: `encnet`.

All of them in one command, with a table: `python -m benchmarks.context_scenes`.
Ours: see docs/context_scenes.md.
"""

from ml_collections import config_dict

from configs import common
from configs import quickstart

# Widths are the backbone's, and nothing is dropped: the networks are small.
_HEADS = {
    "danet": dict(name="danet", channels=64, dropout_rate=0.0),
    "deeplabv3": dict(
        # At output stride 4 these rates reach 24, 48 and 72 pixels.
        name="deeplabv3",
        channels=64,
        rates=(6, 12, 18),
        aspp_dropout_rate=0.0,
    ),
    "deeplabv3plus": dict(
        name="deeplabv3plus",
        channels=64,
        rates=(6, 12, 18),
        aspp_dropout_rate=0.0,
        decoder_dropout_rate=0.0,
        dropout_rate=0.0,
    ),
    "double_attention": dict(
        name="double_attention", channels=64, dropout_rate=0.0
    ),
    "emanet": dict(name="emanet", channels=64, dropout_rate=0.0),
    "encnet": dict(name="encnet", channels=64, dropout_rate=0.0),
    "fcn": dict(name="fcn", channels=64, dropout_rate=0.0),
    "nonlocal": dict(name="nonlocal", channels=64, dropout_rate=0.0),
    "pspnet": dict(name="pspnet", channels=64, dropout_rate=0.0),
}

# What the papers supervise beside the prediction.
_EXTRA_LOSSES = {
    "danet": dict(
        position_logits=common.cross_entropy(),
        channel_logits=common.cross_entropy(),
    ),
    "encnet": dict(se_logits=common.se_loss()),
}


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = quickstart.get_config()
  config.eval_every = config.total_steps
  config.checkpoint_every = 300
  config.eval.num_pictures = 2
  _use_head(config, "encnet")
  variants = {"smoke": common.smoke}
  for name in _HEADS:
    variants[name] = lambda config, name=name: _use_head(config, name)
  for name in ("fcn", "pspnet", "deeplabv3", "nonlocal"):
    variants[f"{name}_aux"] = lambda config, name=name: _add_aux(config, name)
  variants["danet_plain"] = _danet_plain
  variants["encnet_plain"] = _encnet_plain
  common.apply_variant(config, variant, variants)
  return config


def _use_head(config, name):
  config.model.head = dict(_HEADS[name])
  config.loss = dict(
      logits=common.cross_entropy(), **_EXTRA_LOSSES.get(name, {})
  )


def _add_aux(config, name):
  _use_head(config, name)
  config.model.aux_head = dict(
      name="fcn", stage="stage3", channels=64, dropout_rate=0.0
  )
  config.loss.aux_logits = common.cross_entropy(0.4)
  config.optim.lr_multipliers.aux_head = 10.0


def _danet_plain(config):
  _use_head(config, "danet")
  config.model.head.supervise_branches = False
  del config.loss.position_logits, config.loss.channel_logits


def _encnet_plain(config):
  _use_head(config, "encnet")
  config.model.head.se_loss = False
  del config.loss.se_logits
