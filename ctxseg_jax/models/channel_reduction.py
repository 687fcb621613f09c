"""Convolutions to fewer channels: on CPUs their kernel's gradient is a product.

XLA for CPUs turns both inputs of a kernel's gradient, and those of a head that
reduces 2048 channels to 512 lie 8 kB apart, which caches serve worst.
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from ctxseg_jax.models import varying

# Where the input has more channels than this, and twice those of the output.
_MANY = 512


def is_worthwhile(
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]] | str,
) -> bool:
  """Tells whether `reducing_conv` takes these, and is faster."""
  channels, features = kernel.shape[2:]
  if isinstance(padding, str) or set(strides) != {1}:
    return False
  many = channels > _MANY and channels >= 2 * features
  return many and kernel.shape[:2] != (1, 1)


def reducing_conv(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    **options: Any,
) -> jax.Array:
  """Convolves NHWC at stride 1 like `jax.lax.conv_general_dilated`.

  On a CPU the gradient of the kernel is one product, of the inputs with as many
  copies of the cotangent as the kernel has taps, each shifted by one.

  Args:
    inputs: [B, H, W, C].
    kernel: [kh, kw, C, D], D at most half of C, as the copies are k * k * D.
    strides: 1, by rows and columns.
    padding: Zeros around the inputs.
    rhs_dilation: Of the kernel, by rows and columns.
    **options: Of `jax.lax.conv_general_dilated`.
  """
  convolve = functools.partial(
      lax.conv_general_dilated,
      window_strides=strides,
      padding=padding,
      rhs_dilation=rhs_dilation,
      **options,
  )

  def with_product(inputs, kernel):
    (kernel,) = varying.vary_as(inputs, kernel)
    return _convolve(convolve, inputs, kernel)

  return lax.platform_dependent(
      inputs, kernel, cpu=with_product, default=convolve
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(convolve, inputs, kernel):
  return convolve(inputs, kernel)


def _forward(convolve, inputs, kernel):
  return _convolve(convolve, inputs, kernel), (inputs, kernel)


def _backward(convolve, saved, cotangent):
  inputs, kernel = saved
  of_inputs = jax.linear_transpose(lambda x: convolve(x, kernel), inputs)
  (gradient,) = of_inputs(cotangent)
  return gradient, _of_kernel(inputs, cotangent, kernel, convolve.keywords)


_convolve.defvjp(_forward, _backward)


def _of_kernel(inputs, cotangent, kernel, options):
  """Returns the gradient of a kernel [kh, kw, C, D]."""
  # A tap of the kernel meets the cotangent where it lies that much behind.
  dilation = options["rhs_dilation"]
  reach = [
      step * (taps - 1)
      for step, taps in zip(dilation, kernel.shape, strict=False)
  ]
  around = [
      (span - before, span - after, 0)
      for span, (before, after) in zip(reach, options["padding"], strict=True)
  ]
  none = (0, 0, 0)
  zero = jnp.zeros((), cotangent.dtype)
  padded = lax.pad(cotangent, zero, (none, *around, none))
  height, width, channels = inputs.shape[1:]
  shifted = [
      padded[:, top : top + height, left : left + width]
      for top in range(reach[0], -1, -dilation[0])
      for left in range(reach[1], -1, -dilation[1])
  ]
  shifted = jnp.concatenate(shifted, axis=-1)
  product = jnp.matmul(
      inputs.reshape(-1, channels).T,
      shifted.reshape(-1, shifted.shape[-1]),
      precision=options.get("precision"),
      preferred_element_type=jnp.float32,
  )
  by_tap = product.reshape(channels, *kernel.shape[:2], -1)
  return by_tap.transpose(1, 2, 0, 3).astype(kernel.dtype)
