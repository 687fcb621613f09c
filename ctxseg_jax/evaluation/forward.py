"""The network over images or windows, on the devices."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ctxseg_jax.models import products
from ctxseg_jax.models.layers import normalize_images

CONFIDENCE_LEVELS = 256  # The highest confidence is the last of them.

# Sums of larger exponentials could be infinite.
_MAX_EXPONENT = 80.0

# Scores at the size of the image exist for so many values at a time.
_STRIP_VALUES = 4_000_000


def make(
    model: nn.Module,
    mesh: jax.sharding.Mesh,
    mean: Sequence[float],
    std: Sequence[float],
    window: tuple[int, int] | None,
    **options: bool,
) -> Callable[..., jax.Array]:
  """Returns `make_network` as a `jax.jit` function over a mesh.

  Args:
    model: The network.
    mesh: Mesh with one axis, over which batches are spread.
    mean: Mean of the images' channels, 0 to 255.
    std: Their standard deviation.
    window: (H, W) of the windows that the network sees; None is whole images.
    **options: Other arguments of `make_network`.
  """
  forward = make_network(model, mean, std, window, **options)

  def call(variables, *inputs):
    axis = P(mesh.axis_names[0])
    specs = (P(), *[axis] * len(inputs))
    return jax.shard_map(forward, mesh=mesh, in_specs=specs, out_specs=axis)(
        variables, *inputs
    )

  return jax.jit(call)


def make_network(
    model: nn.Module,
    mean: Sequence[float],
    std: Sequence[float],
    window: tuple[int, int] | None,
    *,
    exponentials: bool = False,
    mirrored: bool = False,
    **options: bool,
) -> Callable[..., jax.Array]:
  """Returns the network over images or windows; other arguments as of `make`.

  Args:
    exponentials: Whether to take the exponentials of the logits of a window
      before they are averaged.
    mirrored: Whether to add those of the mirrored window before that.
    **options: What the network is called with.

  Returns:
    A function of variables, images, 0 to 255, [B, H, W, 3], and, with windows,
    their starts [B, n, 2] and weights [B, n]. It returns the logits of the
    network or, with windows, their mean over the windows, [B, H, W, C], or that
    of their exponentials.
  """

  def network(variables, images):
    images = normalize_images(images, mean, std)
    return model.apply(variables, images, train=False, **options)["logits"]

  def see(variables, crops):
    logits = network(variables, crops)
    if mirrored:
      logits += network(variables, crops[:, :, ::-1])[:, :, ::-1]
    if exponentials:
      logits = jnp.exp(jnp.minimum(logits, _MAX_EXPONENT))
    return logits

  def windows(variables, images, starts, weights):
    def cut(image, start):
      return jax.lax.dynamic_slice(image, (*start, 0), (*window, 3))

    def paste(total, count, values, start, weight):
      at = (*start, 0)
      old = jax.lax.dynamic_slice(total, at, values.shape)
      total = jax.lax.dynamic_update_slice(total, old + weight * values, at)
      at = tuple(start)
      old = jax.lax.dynamic_slice(count, at, window)
      count = jax.lax.dynamic_update_slice(count, old + weight, at)
      return total, count

    def visit(carry, step):
      start, weight = step
      values = see(variables, jax.vmap(cut)(images, start))
      return jax.vmap(paste)(*carry, values, start, weight), None

    # The zeros are made from the images so that they vary over devices too.
    zero = images[..., :1].astype(jnp.float32) * 0.0
    one = jnp.zeros((1, *window, 3), images.dtype)
    classes = jax.eval_shape(lambda: network(variables, one)).shape[-1]
    carry = (jnp.repeat(zero, classes, axis=-1), zero[..., 0])
    steps = (starts.swapaxes(0, 1), weights.swapaxes(0, 1))
    (total, count), _ = jax.lax.scan(visit, carry, steps)
    return total / jnp.maximum(count, 1.0)[..., None]

  return network if window is None else windows


def make_fusion(
    mesh: jax.sharding.Mesh, probabilities: bool, exponentials: bool = False
) -> Callable[..., Any]:
  """Returns what makes one map of the logits of all views, with `jax.jit`.

  It is a function of the logits [B, h, w, C] of each view and of the matrices
  [B, H, h] and [B, W, w] that lead from each to the pixels of the map. It
  returns the mean probabilities, [B, H, W, C], or `classes` of them. With
  `exponentials` they are what views have in place of logits, and probabilities
  are their sums, divided by those over all classes. Rows are done in strips, so
  that for classes there is never a score for all pixels. Scores of a row are
  [C, W]: a CPU is faster at comparing whole rows than a few classes.
  """

  def fuse(logits, rows, cols):
    logits = [x.astype(jnp.float32).swapaxes(2, 3) for x in logits]
    batch, height = rows[0].shape[:2]
    values = batch * cols[0].shape[1] * logits[0].shape[2]
    size = min(height, max(1, _STRIP_VALUES // values))
    count = -(-height // size)

    def strip(blocks):
      scores = [
          _resize(*view) for view in zip(blocks, cols, logits, strict=True)
      ]
      # The class of a single view is that of the largest logit.
      are_logits = len(scores) == 1 and not (probabilities or exponentials)
      if not (are_logits or exponentials):
        scores = [jax.nn.softmax(x, axis=2) for x in scores]
      mean = sum(scores) / len(scores)
      if exponentials:
        # Zeros beyond the image.
        total = jnp.sum(mean, axis=2, keepdims=True)
        mean /= jnp.maximum(total, jnp.finfo(total.dtype).tiny)
      if probabilities:
        return mean.swapaxes(2, 3)
      return classes(mean, are_logits, axis=2)

    def split(matrix):
      missing = count * size - height
      matrix = jnp.pad(matrix, ((0, 0), (0, missing), (0, 0)))
      return matrix.reshape(batch, count, size, -1).swapaxes(0, 1)

    def join(strips):
      out = strips.swapaxes(0, 1)
      return out.reshape(batch, count * size, *out.shape[3:])[:, :height]

    strips = jax.lax.map(strip, [split(matrix) for matrix in rows])
    return jax.tree.map(join, strips)

  axis = P(mesh.axis_names[0])
  return jax.jit(jax.shard_map(fuse, mesh=mesh, in_specs=axis, out_specs=axis))


def classes(
    scores: jax.Array, are_logits: bool, axis: int = -1
) -> tuple[jax.Array, jax.Array]:
  """Returns the best classes, and how probable they are.

  Args:
    scores: Probabilities or logits.
    are_logits: Which of the two.
    axis: That of the classes, which what is returned does not have.

  Returns:
    The classes, uint8 (uint16 from 256 classes on), and their probabilities
    in `CONFIDENCE_LEVELS`, uint8.
  """
  dtype = jnp.uint8 if scores.shape[axis] <= 256 else jnp.uint16
  best = scores.max(axis=axis, keepdims=True)
  if are_logits:
    best = 1.0 / jnp.sum(jnp.exp(scores - best), axis=axis, keepdims=True)
  best = best.squeeze(axis)
  levels = jnp.clip(best * CONFIDENCE_LEVELS, 0, CONFIDENCE_LEVELS - 1)
  return scores.argmax(axis=axis).astype(dtype), levels.astype(jnp.uint8)


def _resize(rows, cols, x):
  """Maps [B, h, C, w] to [B, H, C, W]."""
  x = products.einsum("bHh,bhcw->bHcw", rows, x)
  return products.einsum("bHcw,bWw->bHcW", x, cols)
