"""Context heads for semantic segmentation in JAX and Flax.

  import ctxseg_jax

  trained = ctxseg_jax.load("runs/quickstart")
  class_maps = trained.predict([image])  # uint8 RGB arrays in, class maps out.

What is below is imported when it is first used, so that a process that only
reads data does not wait for the networks.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from ctxseg_jax import losses as losses
  from ctxseg_jax.evaluation import metrics as metrics
  from ctxseg_jax.experiment import build_model as build_model
  from ctxseg_jax.experiment import load as load
  from ctxseg_jax.experiment import parse as parse
  from ctxseg_jax.experiment import train_and_evaluate as train_and_evaluate
  from ctxseg_jax.experiment import Trained as Trained
  from ctxseg_jax.models.backbones import BACKBONES as BACKBONES
  from ctxseg_jax.models.heads import HEADS as HEADS

__version__ = "0.1.0"

# The module that each public name is in, or that it is.
_PUBLIC = {
    "BACKBONES": "ctxseg_jax.models.backbones",
    "HEADS": "ctxseg_jax.models.heads",
    "Trained": "ctxseg_jax.experiment",
    "build_model": "ctxseg_jax.experiment",
    "load": "ctxseg_jax.experiment",
    "losses": "ctxseg_jax.losses",
    "metrics": "ctxseg_jax.evaluation.metrics",
    "parse": "ctxseg_jax.experiment",
    "train_and_evaluate": "ctxseg_jax.experiment",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module = importlib.import_module(_PUBLIC[name])
  return getattr(module, name, module)


def __dir__() -> list[str]:
  return [*globals(), *__all__]
