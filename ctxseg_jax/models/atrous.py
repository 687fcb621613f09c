"""Atrous convolutions that leave out their padding on CPUs."""

from collections.abc import Sequence
import itertools
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

# A CPU is faster where no more of the products than this meet pixels; above,
# one convolution is as fast.
_FEW = 0.75
# Of an image: fewer products with zeros, two tenths of a millisecond,
# are not worth what the sum takes to compile.
_LEAST_SAVED = 20_000_000


class _Tap(NamedTuple):
  """Where a row or a column of a kernel meets pixels.

  Outputs from `start` to `stop` meet the inputs that lie `shift` behind.
  """

  start: int
  stop: int
  shift: int


def is_worthwhile(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]] | str,
    rhs_dilation: Sequence[int],
) -> bool:
  """Tells whether `atrous_conv` takes these, and saves work by it."""
  if set(rhs_dilation) == {1} or set(strides) != {1}:
    return False
  symbolic = any(map(jax.export.is_symbolic_dim, inputs.shape[1:3]))
  if symbolic or isinstance(padding, str):
    return False
  products = kernel.size
  share = 1.0
  for size, taps in _axes(inputs, kernel, padding, rhs_dilation):
    products *= size
    share *= sum(tap.stop - tap.start for tap in taps) / (size * len(taps))
  return share <= _FEW and (1 - share) * products >= _LEAST_SAVED


def atrous_conv(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    **options: Any,
) -> jax.Array:
  """Convolves NHWC with a dilated kernel, at stride 1.

  On a CPU it is a sum of products of matrices: of each tap of the kernel with
  the pixels that it meets. On a map of 28x28 a kernel of 3x3 meets them with
  18 % of its products at rate 24, and with its centre alone at rate 36.
  Accelerators have XLA's convolution.

  Args:
    inputs: [B, H, W, C].
    kernel: [kh, kw, C, D].
    strides: 1, by rows and columns.
    padding: Zeros around the inputs.
    rhs_dilation: Of the kernel, by rows and columns.
    **options: Of `jax.lax.conv_general_dilated`.
  """

  def by_taps(inputs, kernel):
    axes = _axes(inputs, kernel, padding, rhs_dilation)
    (height, rows), (width, columns) = axes
    parts = []
    for (i, row), (j, column) in itertools.product(
        enumerate(rows), enumerate(columns)
    ):
      if row.start == row.stop or column.start == column.stop:
        continue
      met = inputs[
          :,
          row.start + row.shift : row.stop + row.shift,
          column.start + column.shift : column.stop + column.shift,
      ]
      part = jnp.matmul(
          met.reshape(-1, met.shape[-1]),
          kernel[i, j],
          precision=options.get("precision"),
          preferred_element_type=jnp.float32,
      )
      around = (
          (0, 0),
          (row.start, height - row.stop),
          (column.start, width - column.stop),
          (0, 0),
      )
      part = part.reshape(*met.shape[:3], kernel.shape[-1])
      parts.append(jnp.pad(part, around))
    return sum(parts).astype(inputs.dtype)

  def by_xla(inputs, kernel):
    return lax.conv_general_dilated(
        inputs, kernel, strides, padding, rhs_dilation=rhs_dilation, **options
    )

  return lax.platform_dependent(inputs, kernel, cpu=by_taps, default=by_xla)


def _axes(inputs, kernel, padding, dilation) -> list[tuple[int, list[_Tap]]]:
  """Returns size of the output, and taps of the kernel, by rows and columns."""
  axes = []
  for size, num_taps, (before, after), step in zip(
      inputs.shape[1:3], kernel.shape[:2], padding, dilation, strict=True
  ):
    out = size + before + after - step * (num_taps - 1)
    taps = []
    for i in range(num_taps):
      shift = step * i - before
      start = min(max(0, -shift), out)
      taps.append(_Tap(start, max(start, min(out, size - shift)), shift))
    axes.append((out, taps))
  return axes
