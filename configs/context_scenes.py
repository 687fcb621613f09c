r"""Every context head on context scenes: one backbone, data and schedule.

  python train.py --config configs/context_scenes.py:danet \
      --workdir runs/context_scenes/danet

Variants: `fcn`, `fcn_aux`, `fcn_se`, `pspnet`, `pspnet_aux`, `deeplabv2`,
`deeplabv3`, `deeplabv3_aux`, `deeplabv3plus`, `nonlocal`, `nonlocal_aux`,
`double_attention`, `emanet`, `danet`, `danet_plain`, `encnet`, `encnet_plain`,
`encnet_k0`, `encnet_k8`, `sca`, `sanet`, `sanet_plain`, `sanet_cat`,
`sanet_dense`, `mfnet`, `mfnet_plain`, `mfnet_lambda1`, `smoke`. `_aux` adds an
auxiliary FCN on stage 3, `_plain` takes the paper's extra supervision away,
`_k0` and `_k8` have so many codewords instead of 32, `_lambda1` weighs the
reconstruction loss by 1 instead of 0.1. `sanet_cat` has no dense branch;
`sanet_dense` predicts by the sum of dense and attended logits, the head's
default, where the other SANets predict by the four masks. Without a variant:
`encnet`.

All of them in one command, with a table: `python -m benchmarks.context_scenes`.
Ours: see docs/context_scenes.md.
"""

import functools

from ml_collections import config_dict

from configs import common
from configs import quickstart

# Widths are the backbone's, and nothing is dropped: the networks are small.
_HEADS = {
    "danet": dict(name="danet", channels=64, dropout_rate=0.0),
    # At output stride 4 these rates reach 24, 48, 72 and 96 pixels.
    "deeplabv2": dict(name="deeplabv2", rates=(6, 12, 18, 24)),
    "deeplabv3": dict(
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
    "fcn_se": dict(name="fcn_se", channels=64, dropout_rate=0.0),
    "mfnet": dict(
        name="mfnet",
        channels=64,
        map_size=(32, 32),
        decoder_dropout_rate=0.0,
        dropout_rate=0.0,
    ),
    "nonlocal": dict(name="nonlocal", channels=64, dropout_rate=0.0),
    "pspnet": dict(name="pspnet", channels=64, dropout_rate=0.0),
    "sanet": dict(
        name="sanet", channels=64, dropout_rate=0.0, prediction="masks"
    ),
    "sca": dict(
        name="sca",
        channels=64,
        host=dict(name="fcn", channels=64, dropout_rate=0.0),
    ),
}

# What the papers supervise beside or instead of the prediction.
_EXTRA_LOSSES = {
    "danet": dict(
        position=common.cross_entropy("position_logits"),
        channel=common.cross_entropy("channel_logits"),
    ),
    "encnet": dict(se=common.presence("se_logits")),
    "mfnet": dict(
        reconstruction=dict(
            output="reconstruction_residual",
            loss="mean_squared_residual",
            weight=0.1,
            start_step=100,
        )
    ),
    "sanet": dict(
        ce=common.cross_entropy("mask_logits"),
        category=common.presence("category_logits", targets="area"),
        dense=common.cross_entropy("dense_logits", 0.8),
    ),
}


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = quickstart.get_config()
  config.eval_every = config.total_steps
  config.checkpoint_every = 300
  config.eval.num_pictures = 2
  _use_head("encnet", config)
  return common.apply_variants(config, variants, VARIANTS)


def _use_head(name, config):
  config.model.head = dict(_HEADS[name])
  prediction = dict(ce=common.cross_entropy("logits"))
  config.loss = prediction | _EXTRA_LOSSES.get(name, {})
  if name == "mfnet":  # From this step on its prediction uses the factors.
    config.switches = dict(low_rank=100)


def _add_aux(name, config):
  _use_head(name, config)
  config.model.aux_head = common.fcn_aux(64, dropout_rate=0.0)
  config.loss.aux = common.cross_entropy("aux_logits", 0.4)
  config.optim.lr_multipliers.aux_head = 10.0


def _plain(name, fields, config):
  """Supervises the prediction alone; `fields` drop the other outputs."""
  _use_head(name, config)
  config.model.head.update(fields)
  config.loss = dict(ce=config.loss.ce)


def _encnet(num_codewords, config):
  """EncNet with another number of codewords, and its SE-loss."""
  _use_head("encnet", config)
  config.model.head.num_codewords = num_codewords


def _mfnet_lambda1(config):
  """MFNet with another weight of the reconstruction loss (report: lambda)."""
  _use_head("mfnet", config)
  config.loss.reconstruction.weight = 1.0


def _sanet_cat(config):
  """The third row of the paper's Table 1: no dense branch."""
  _use_head("sanet", config)
  config.model.head.dense_loss = False
  del config.loss.dense


def _sanet_dense(config):
  """The paper's text taken to the letter."""
  _use_head("sanet", config)
  config.model.head.prediction = "dense"


VARIANTS = {
    **{name: functools.partial(_use_head, name) for name in _HEADS},
    **{
        f"{name}_aux": functools.partial(_add_aux, name)
        for name in ("fcn", "pspnet", "deeplabv3", "nonlocal")
    },
    **{
        f"{name}_plain": functools.partial(_plain, name, fields)
        for name, fields in (
            ("danet", dict(supervise_branches=False)),
            ("encnet", dict(se_loss=False)),
            ("mfnet", dict(reconstruction_loss=False)),
            ("sanet", dict(category_loss=False, dense_loss=False)),
        )
    },
    "encnet_k0": functools.partial(_encnet, 0),
    "encnet_k8": functools.partial(_encnet, 8),
    "mfnet_lambda1": _mfnet_lambda1,
    "sanet_cat": _sanet_cat,
    "sanet_dense": _sanet_dense,
    "smoke": common.smoke,
}
