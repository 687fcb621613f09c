"""The files that a network is exported to."""

from collections.abc import Sequence
import contextlib
import importlib.util
import io
import logging

import flax.linen as nn
import jax
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.deployment import inference

PLATFORMS = ("cpu", "cuda", "tpu")
SMALLEST = 32  # Pixels a side where the size is free.


def to_stablehlo(
    function: inference.Function, size: Sequence[int] | None
) -> bytes:
  """Returns a program that `jax.export.deserialize` reads, for `PLATFORMS`.

  Args:
    function: What `inference.make` returns; its parameters become part of the
      program.
    size: (H, W) of images; None leaves it free, from 32 pixels on.

  Raises:
    Exception: The function does not work without a size. JAX names what it
      could not decide; of its exceptions not all have a class in common.
  """
  if size is None:
    shape = jax.export.symbolic_shape(
        "batch, height, width",
        constraints=(f"height >= {SMALLEST}", f"width >= {SMALLEST}"),
    )
  else:
    shape = (*jax.export.symbolic_shape("batch"), *size)
  images = jax.ShapeDtypeStruct((*shape, 3), np.uint8)
  exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(images)
  return bytes(exported.serialize())


class RefusedError(errors.UserError):
  """A network, or an operation of it, that a format does not have."""


def to_onnx(function: inference.Function, size: Sequence[int]) -> bytes:
  """Returns an ONNX model for batches of images of one size.

  Raises:
    RefusedError: The converter is missing, or does not know an operation.
  """
  missing = [
      name
      for name in ("jax2onnx", "onnxruntime")
      if importlib.util.find_spec(name) is None
  ]
  if missing:
    raise RefusedError(
        f"{' and '.join(missing)} not installed; run"
        " `pip install -e '.[onnx]'`"
    )
  with _silenced(), _lenient_batch_norms():
    import jax2onnx  # Slow, and optional.

    try:
      model = jax2onnx.to_onnx(
          function,
          inputs=[jax.ShapeDtypeStruct(("batch", *size, 3), np.uint8)],
          input_names=["images"],
          output_names=["classes", "probabilities"],
          model_name="ctxseg_jax",
      )
    except Exception as e:  # The converter raises what it comes across.
      reason = " ".join(str(e).split()) or type(e).__name__
      raise RefusedError(f"jax2onnx cannot convert it: {reason[:200]}") from e
  # Some of its notes on shapes between layers are wrong, and warned of.
  del model.graph.value_info[:]
  return model.SerializeToString()


@contextlib.contextmanager
def _lenient_batch_norms():
  """Lets batch norms be called with a field of theirs, which flax refuses.

  jax2onnx 0.13 does so where their axis is not the last (EncNet's).
  """
  strict = nn.BatchNorm.__call__
  nn.BatchNorm.__call__ = (
      lambda self, x, use_running_average=None, **kwargs: strict(
          self, x, **kwargs
      )
  )
  try:
    yield
  finally:
    nn.BatchNorm.__call__ = strict


@contextlib.contextmanager
def _silenced():
  """Drops what the converter prints and logs of its progress."""
  previous = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.disable(previous)
