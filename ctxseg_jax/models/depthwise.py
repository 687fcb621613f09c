"""Depthwise convolutions that are fast on CPUs too."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

# (before, after) of rows and of columns; or TensorFlow's "SAME".
Padding = Sequence[tuple[int, int]] | str


def depthwise_conv(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    *,
    rhs_dilation: Sequence[int] = (1, 1),
    **options: Any,
) -> jax.Array:
  """Convolves each channel with a kernel of its own.

  On a CPU it is a sum of shifted products, whose gradients take a fifth to a
  fifteenth of the time of XLA's depthwise convolution. Accelerators have XLA's.

  Args:
    inputs: Images, [B, H, W, C].
    kernel: [kh, kw, 1, C].
    strides: By rows and columns.
    padding: Zeros around the inputs.
    rhs_dilation: Of the kernel, by rows and columns.
    **options: Of `jax.lax.conv_general_dilated`, for accelerators.
  """
  pads = padding
  if isinstance(padding, str):
    spans = [
        d * (n - 1) + 1
        for d, n in zip(rhs_dilation, kernel.shape, strict=False)
    ]
    pads = lax.padtype_to_pads(inputs.shape[1:3], spans, strides, padding)

  def by_shifts(inputs, kernel):
    # Image by image, so that its shifts stay in the cache. The checkpoint
    # keeps the gradient from storing a copy of the image for every shift.
    convolve = jax.checkpoint(
        lambda x: sum_of_shifts(x, kernel, strides, pads, rhs_dilation)
    )
    return lax.map(convolve, inputs)

  def by_xla(inputs, kernel):
    return lax.conv_general_dilated(
        inputs,
        kernel,
        strides,
        padding,  # Of a symbolic size it has to be a string.
        rhs_dilation=rhs_dilation,
        feature_group_count=inputs.shape[-1],
        **options,
    )

  return lax.platform_dependent(inputs, kernel, cpu=by_shifts, default=by_xla)


def sum_of_shifts(
    image: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
) -> jax.Array:
  """Returns the depthwise convolution of one image [H, W, C], [h, w, C]."""
  padded = jnp.pad(image, (*padding, (0, 0)))
  sizes = kernel.shape[:2]
  spans = [
      padded.shape[axis] - dilation[axis] * (sizes[axis] - 1)
      for axis in range(2)
  ]
  total = 0.0
  for i in range(sizes[0]):
    for j in range(sizes[1]):
      top, left = i * dilation[0], j * dilation[1]
      shifted = lax.slice(
          padded,
          (top, left, 0),
          (top + spans[0], left + spans[1], image.shape[-1]),
          (*strides, 1),
      )
      total += shifted * kernel[i, j, 0]
  return total
