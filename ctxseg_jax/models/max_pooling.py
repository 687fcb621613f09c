"""Max pooling whose gradient is fast on CPUs too."""

import functools
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp


class Geometry(NamedTuple):
  """Which elements a window has."""

  window: int  # Rows, and columns.
  stride: int
  padding: tuple[tuple[int, int], tuple[int, int]]


def max_pool(
    x: jax.Array,
    *,
    window: int = 3,
    stride: int = 2,
    padding: int = 1,
    ceil_mode: bool = False,
) -> jax.Array:
  """Pools [B, H, W, C] by the maximum, padded with minus infinity.

  `ceil_mode` rounds output sizes up instead of down where the stride leaves a
  remainder: a last window then reaches over the edge (Caffe's rule; PyTorch's
  option of this name).
  """
  pads = []
  for size in x.shape[1:3]:
    rest = (size + 2 * padding - window) % stride
    over = stride - rest if ceil_mode and rest else 0
    # No window begins beyond the first padding and the map.
    starts_at = size + 2 * padding + over - window
    pads.append((padding, padding + over * (starts_at < size + padding)))
  geometry = Geometry(window, stride, tuple(pads))
  return lax.platform_dependent(
      x,
      cpu=functools.partial(_pool_with_own_gradient, geometry),
      default=functools.partial(_pool, geometry),
  )


def _pool(geometry, x):
  window, stride, padding = geometry
  return nn.max_pool(x, (window,) * 2, (stride,) * 2, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pool_with_own_gradient(geometry, x):
  return _pool(geometry, x)


def _forward(geometry, x):
  y = _pool(geometry, x)
  return y, (x, y)


def _backward(geometry, saved, cotangents):
  """Gives the gradient of a window to its first maximum, as XLA does.

  The elements that are at one place of their window are every `stride`-th row
  and column: they are summed as maps of that size, and interleaved at the end.
  XLA for CPUs searches and adds element by element, which takes seven times as
  long, a fiftieth of a step of ResNet-50.
  """
  window, stride, padding = geometry
  x, y = saved
  b, height, width, channels = x.shape
  pads = ((0, 0), *padding, (0, 0))
  padded = jnp.pad(x, pads, constant_values=-jnp.inf)
  rows, cols = (-(-size // stride) for size in padded.shape[1:3])
  zeros = jnp.zeros((b, rows, cols, channels), x.dtype)
  maps = dict.fromkeys(itertools.product(range(stride), repeat=2), zeros)
  is_found = jnp.zeros(y.shape, bool)
  for i, j in itertools.product(range(window), repeat=2):
    element = padded[:, i::stride, j::stride][:, : y.shape[1], : y.shape[2]]
    is_first = (element == y) & ~is_found
    is_found |= is_first
    gradient = jnp.where(is_first, cotangents, 0)
    down, right = i // stride, j // stride
    place = (
        (down, rows - down - y.shape[1]),
        (right, cols - right - y.shape[2]),
    )
    maps[i % stride, j % stride] += jnp.pad(gradient, ((0, 0), *place, (0, 0)))
  # [B, rows, stride, cols, stride, C]
  interleaved = jnp.stack(
      [
          jnp.stack([maps[i, j] for j in range(stride)], axis=3)
          for i in range(stride)
      ],
      axis=2,
  )
  gradient = interleaved.reshape(b, rows * stride, cols * stride, channels)
  (top, _), (left, _) = padding
  return (gradient[:, top : top + height, left : left + width],)


_pool_with_own_gradient.defvjp(_forward, _backward)
