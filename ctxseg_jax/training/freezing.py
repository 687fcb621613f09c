"""Parts of a network that a training leaves as they are.

Frozen modules run as in evaluation: their batch norms normalise by the running
statistics, which stay as they are, and nothing in them is dropped.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from typing import Any

import flax
import flax.linen as nn
import optax

from ctxseg_jax import errors
from ctxseg_jax import patterns


def split(params: Any, frozen: Sequence[str]) -> tuple[Any, Any]:
  """Returns the parameters that are trained, and those that are not."""
  if not frozen:
    return params, {}
  parts = {}, {}
  for path, x in flax.traverse_util.flatten_dict(params, sep="/").items():
    parts[patterns.matches_any(path, frozen)][path] = x
  trained, kept = (
      flax.traverse_util.unflatten_dict(part, sep="/") for part in parts
  )
  return trained, kept


def merge(trained: Any, kept: Any) -> Any:
  """Returns the parameters that were split."""
  if not kept:
    return trained
  flat = flax.traverse_util.flatten_dict
  return flax.traverse_util.unflatten_dict({**flat(trained), **flat(kept)})


def freeze(
    tx: optax.GradientTransformation, frozen: Sequence[str]
) -> optax.GradientTransformation:
  """Returns a transformation of the gradients of what is trained alone.

  It is initialised and called with all parameters. Raises a UserError if a
  pattern matches no parameter, or nothing is left to train.
  """
  if not frozen:
    return tx

  def init(params):
    names = list(flax.traverse_util.flatten_dict(params, sep="/"))
    patterns.refuse_unmatched(frozen, names, "optim.freeze")
    trained, _ = split(params, frozen)
    if not trained:
      raise errors.UserError(
          f"config: optim.freeze: {', '.join(frozen)} leave nothing to train;"
          " leave out what should be"
      )
    return tx.init(trained)

  def update(updates, state, params):
    return tx.update(updates, state, split(params, frozen)[0])

  return optax.GradientTransformation(init, update)


@contextlib.contextmanager
def running(frozen: Sequence[str]) -> Iterator[None]:
  """Runs the frozen modules of what is applied in it as in evaluation."""

  def run(next_fun, args, kwargs, context):
    module = context.module
    if module.scope is not None:
      if patterns.matches_any("/".join(module.path), frozen):
        kwargs = kwargs | ({"train": False} if "train" in kwargs else {})
        if isinstance(module, nn.BatchNorm):
          # A field of what is a copy for this call, for which linen has no
          # argument where the field is set.
          object.__setattr__(module, "use_running_average", True)
    return next_fun(*args, **kwargs)

  with nn.intercept_methods(run) if frozen else contextlib.nullcontext():
    yield
