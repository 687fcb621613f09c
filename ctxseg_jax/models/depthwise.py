"""Depthwise convolutions that are fast on CPUs too."""

from collections.abc import Sequence
import functools
import itertools
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from ctxseg_jax.models import varying

# (before, after) of rows and of columns; or TensorFlow's "SAME".
Padding = Sequence[tuple[int, int]] | str


class Geometry(NamedTuple):
  """How a kernel moves over an image, each by rows and columns."""

  strides: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]
  dilation: tuple[int, int]


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

  On a CPU it is a sum of shifted products, whose gradients take less than a
  fifth of the time of XLA's depthwise convolution. Accelerators have XLA's.

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
    (kernel,) = varying.vary_as(inputs, kernel)
    geometry = Geometry(tuple(strides), tuple(pads), tuple(rhs_dilation))
    return _convolve(geometry, inputs, kernel[:, :, 0])

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(geometry, images, kernel):
  # Image by image, so that its shifts stay in the cache.
  return lax.map(lambda x: sum_of_shifts(x, kernel, geometry), images)


def _forward(geometry, images, kernel):
  return _convolve(geometry, images, kernel), (images, kernel)


def _backward(geometry, saved, cotangents):
  """Both gradients, without a copy of the images for every shift."""
  images, kernel = saved
  height, width = images.shape[1:3]
  sizes = kernel.shape[:2]

  def of_image(pair):
    image, cotangent = pair
    # The transpose: the cotangent, spread to the strides, with the kernel
    # turned round.
    spread = [
        (
            d * (n - 1) - before,
            size + before - 1 - s * (out - 1),
            s - 1,
        )
        for d, n, (before, _), size, s, out in zip(
            geometry.dilation,
            sizes,
            geometry.padding,
            (height, width),
            geometry.strides,
            cotangent.shape,
            strict=False,
        )
    ]
    padded = lax.pad(
        cotangent, jnp.zeros((), image.dtype), (*spread, (0, 0, 0))
    )
    turned = Geometry((1, 1), ((0, 0), (0, 0)), geometry.dilation)
    gradient = sum_of_shifts(padded, kernel[::-1, ::-1], turned)
    by_shift = _sums_of_rows(
        (cotangent * shifted).astype(jnp.float32)
        for _, shifted in _shifts(image, sizes, geometry)
    )
    return gradient, jnp.sum(by_shift, axis=1).reshape(kernel.shape)

  gradients, by_image = lax.map(of_image, (images, cotangents))
  return gradients, jnp.sum(by_image, axis=0).astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _sums_of_rows(maps):
  """Sums T maps [H, W, C] along their rows, to [T, H, C].

  They are made in one pass over what they are made of: half the time of a pass
  for each.
  """
  maps = tuple(maps)
  zeros = (jnp.zeros((), jnp.float32),) * len(maps)

  def add(*sums):
    return [a + b for a, b in zip(*sums, strict=True)]

  return jnp.stack(lax.reduce(maps, zeros, add, dimensions=(1,)))


def sum_of_shifts(
    image: jax.Array, kernel: jax.Array, geometry: Geometry
) -> jax.Array:
  """Returns the depthwise convolution of [H, W, C] with [h, w, C]."""
  return sum(
      shifted * kernel[i, j]
      for (i, j), shifted in _shifts(image, kernel.shape[:2], geometry)
  )


def _shifts(image, sizes, geometry):
  """Yields each index of the kernel and the inputs that it meets."""
  padded = jnp.pad(image, (*geometry.padding, (0, 0)))
  for i, j in itertools.product(*map(range, sizes)):
    start = [at * d for at, d in zip((i, j), geometry.dilation, strict=True)]
    stop = [
        length - d * (size - 1 - at)
        for length, d, size, at in zip(
            padded.shape, geometry.dilation, sizes, (i, j), strict=False
        )
    ]
    shifted = lax.slice(
        padded,
        (*start, 0),
        (*stop, image.shape[-1]),
        (*geometry.strides, 1),
    )
    yield (i, j), shifted
