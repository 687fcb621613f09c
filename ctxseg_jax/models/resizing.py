"""Resizing and pooling of maps, without parameters.

Interpolation and averaging are products with a fixed matrix along each axis:
one form for all conventions, without gathers, which are slow on TPUs. Where a
network is exported for images of any size, sizes are symbolic, and the program
computes the matrices.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import products

# Name scope of the products that the published counts of multiply-accumulates
# leave out; see `macs`.
FIXED_MATRICES = "fixed_matrices"


@jax.custom_vjp
def multiply(rows: jax.Array, cols: jax.Array, x: jax.Array) -> jax.Array:
  """Maps [B, h, w, C] to [B, H, W, C] by matrices [H, h] and [W, w].

  The matrices have no gradient.
  """
  # On a CPU a product over columns turns the map: where rows are fewer.
  target, source = rows.shape
  if not _is_symbolic(target) and (_is_symbolic(source) or target < source):
    return _multiply_cols(cols, _multiply_rows(rows, x))
  return _multiply_rows(rows, _multiply_cols(cols, x))


def _multiply_forward(rows, cols, x):
  return multiply(rows, cols, x), (rows, cols)


def _multiply_backward(matrices, cotangent):
  rows, cols = matrices
  # That which JAX finds turns the cotangent.
  return None, None, multiply(rows.T, cols.T, cotangent)


multiply.defvjp(_multiply_forward, _multiply_backward)


def _multiply_rows(rows, x):
  # One for each image: its product with all of them would be turned.
  rows = jnp.broadcast_to(rows, (x.shape[0], *rows.shape))
  return products.einsum("bHh,bhWc->bHWc", rows, x)


def _multiply_cols(cols, x):
  return products.einsum("Ww,bHwc->bHWc", cols, x)


def resize_matrix(
    target: int,
    source: int,
    *,
    align_corners: bool,
    rows: slice = slice(None),
) -> np.ndarray:
  """Returns the matrix of linear interpolation along one axis.

  Equal to `torch.nn.functional.interpolate(mode="bilinear")`, without
  antialiasing. float32 [target, source], or those `rows` of it; rows sum to 1.
  `align_corners` is whether the first and last samples of both grids coincide
  (else the half-pixel rule with clamped edges).
  """
  if align_corners:
    step = (source - 1) / (target - 1) if target > 1 else 0.0
    positions = np.arange(target) * step
  else:
    positions = (np.arange(target) + 0.5) * (source / target) - 0.5
  positions = np.clip(positions, 0, source - 1)[rows]
  low = np.floor(positions).astype(np.int64)
  high = np.minimum(low + 1, source - 1)
  weight = positions - low
  matrix = np.zeros((len(positions), source))
  row = np.arange(len(positions))
  np.add.at(matrix, (row, low), 1 - weight)
  np.add.at(matrix, (row, high), weight)
  return matrix.astype(np.float32)


@jax.named_scope(FIXED_MATRICES)
def resize_bilinear(
    x: jax.Array, size: Sequence[int], *, align_corners: bool
) -> jax.Array:
  """Resizes [B, h, w, C] to (H, W) = `size` in float32; see `resize_matrix`."""
  x = x.astype(jnp.float32)
  if tuple(x.shape[1:3]) == tuple(size):
    return x
  rows, cols = (
      _resize_matrix(target, source, align_corners)
      for target, source in zip(size, x.shape[1:3], strict=True)
  )
  return multiply(rows, cols, x)


def _resize_matrix(target, source, align_corners):
  """Returns `resize_matrix`, which the program computes of symbolic sizes."""
  if not _is_symbolic(target, source):
    return resize_matrix(target, source, align_corners=align_corners)
  # In whole numbers, as positions in float32 are too coarse.
  row = jnp.arange(target)
  if align_corners:
    position, unit = row * (source - 1), jnp.maximum(target - 1, 1)
  else:
    position, unit = (2 * row + 1) * source - target, 2 * target
  position = jnp.clip(position, 0, (source - 1) * unit)
  low = position // unit
  high = jnp.minimum(low + 1, source - 1)
  weight = ((position - low * unit) / unit)[:, None]
  column = jnp.arange(source)
  matrix = jnp.where(column == low[:, None], 1.0 - weight, 0.0)
  return matrix + jnp.where(column == high[:, None], weight, 0.0)


def shifted_matrices(
    target: int, source: int, taps: int, align_corners: bool
) -> jax.Array:
  """Returns what each tap of a kernel meets of an interpolated map.

  The matrices of linear interpolation, shifted by the places of the taps
  around the centre, with zeros beyond the map: [taps, target, source].
  """
  matrix = _resize_matrix(target, source, align_corners)
  around = taps // 2
  padded = jnp.pad(matrix, ((around, around), (0, 0)))
  return jnp.stack([padded[i : i + target] for i in range(taps)])


def _is_symbolic(*sizes: int) -> bool:
  return any(map(jax.export.is_symbolic_dim, sizes))


def transposed_matrix(source: int, stride: int) -> np.ndarray:
  """Returns the matrix of bilinear transposed convolution along one axis.

  The kernel has 2 * stride taps and no padding, as in FCN. Unlike
  `resize_matrix` it fades out beyond the first and the last sample. float32
  [(source + 1) * stride, source].
  """
  taps = np.arange(2 * stride)
  kernel = 1 - np.abs(taps - (stride - 0.5)) / stride
  matrix = np.zeros(((source + 1) * stride, source), np.float32)
  for i in range(source):
    matrix[i * stride + taps, i] = kernel
  return matrix


def upsample_transposed(
    x: jax.Array, stride: int, *, offset: int = 0, size: Sequence[int] = ()
) -> jax.Array:
  """Upsamples float32 [B, h, w, C] by a bilinear transposed convolution.

  Returns (H, W) = `size` of it from row and column `offset` on, or all if
  `size` is empty.
  """
  rows = transposed_matrix(x.shape[1], stride)
  cols = transposed_matrix(x.shape[2], stride)
  if size:
    rows = rows[offset : offset + size[0]]
    cols = cols[offset : offset + size[1]]
  return multiply(rows, cols, x)


def adaptive_pool_matrix(target: int, source: int) -> np.ndarray:
  """Returns the matrix of adaptive average pooling along one axis.

  Equal to `torch.nn.functional.adaptive_avg_pool2d`: bins overlap where
  `target` does not divide `source`. float32 [target, source]; rows sum to 1.
  """
  matrix = np.zeros((target, source), np.float32)
  for i in range(target):
    low = i * source // target
    high = -(-(i + 1) * source // target)
    matrix[i, low:high] = 1.0 / (high - low)
  return matrix


@jax.named_scope(FIXED_MATRICES)
def adaptive_average_pool(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Averages [B, h, w, C] over (H, W) = `size` bins, in float32."""
  rows, cols = map(_adaptive_pool_matrix, size, x.shape[1:3])
  return multiply(rows, cols, x.astype(jnp.float32))


def _adaptive_pool_matrix(target, source):
  """Returns `adaptive_pool_matrix`, also of a symbolic source."""
  if not _is_symbolic(source):
    return adaptive_pool_matrix(target, source)
  row, column = jnp.arange(target)[:, None], jnp.arange(source)
  low = row * source // target
  high = -(-(row + 1) * source // target)
  return jnp.where((low <= column) & (column < high), 1.0 / (high - low), 0.0)


def pool_cells(
    x: jax.Array, size: int, kind: Literal["average", "max"]
) -> jax.Array:
  """Pools [B, h, w, C] over square cells without overlap, in float32.

  Cells at the edges count the pixels they have: 60 pixels make 8 cells of 8,
  the last one of 4. Returns [B, ceil(h / size), ceil(w / size), C].
  """
  b, h, w, c = x.shape
  rows, cols = -(-h // size), -(-w // size)
  # Reshaping, not a reduction over windows: its gradient is many times faster
  # on CPUs.
  cells = jnp.pad(
      x.astype(jnp.float32),
      ((0, 0), (0, rows * size - h), (0, cols * size - w), (0, 0)),
      constant_values=-jnp.inf if kind == "max" else 0.0,
  ).reshape(b, rows, size, cols, size, c)
  if kind == "max":
    return jnp.max(cells, axis=(2, 4))
  heights = jnp.minimum(size, h - size * jnp.arange(rows))
  widths = jnp.minimum(size, w - size * jnp.arange(cols))
  counts = jnp.outer(heights, widths).astype(jnp.float32)
  return jnp.sum(cells, axis=(2, 4)) / counts[..., None]
