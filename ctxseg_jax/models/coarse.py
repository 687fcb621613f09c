"""Convolutions over maps of which some are coarser, without upsampling those.

Heads concatenate a map with upsampled ones and convolve. Interpolation and
convolution are linear, and can change places: the kernel's taps are applied to
the pixels of the coarse map, which are few, and what they give is interpolated
and shifted. A third to two thirds of the arithmetic of such convolutions goes
away, and so do the upsampled maps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import convolution
from ctxseg_jax.models import products
from ctxseg_jax.models import resizing


class Upsampled(NamedTuple):
  """A map that stands for itself at the size of the maps beside it.

  Attributes:
    values: [B, h, w, C].
    align_corners: Convention of the interpolation.
  """

  values: jax.Array
  align_corners: bool = False


# One at the size of the output, or a coarser one.
Part = jax.Array | Upsampled


class JoinedConv(nn.Module):
  """A convolution over concatenated channels, without a bias, at stride 1.

  It has the kernel of `nn.Conv`, [k, k, all channels, features]. Zeros are
  around the maps, upsampled ones too.
  """

  features: int
  kernel_size: int
  kernel_init: nn.initializers.Initializer
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, parts: Sequence[Part], *, train: bool) -> jax.Array:
    """Maps parts, at least one of [B, H, W, C], to [B, H, W, features]."""
    channels = [_values(part).shape[-1] for part in parts]
    size = (self.kernel_size, self.kernel_size)
    shape = (*size, sum(channels), self.features)
    kernel = self.param("kernel", self.kernel_init, shape)
    ends = np.cumsum(channels)[:-1]
    kernels = jnp.split(kernel.astype(self.dtype), ends, axis=2)
    pairs = list(zip(parts, kernels, strict=True))
    fine = [(x, k) for x, k in pairs if not isinstance(x, Upsampled)]
    out = convolution.choose(train=train)(
        jnp.concatenate([x.astype(self.dtype) for x, _ in fine], axis=-1),
        jnp.concatenate([k for _, k in fine], axis=2),
        (1, 1),
        ((self.kernel_size // 2,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    total = out.astype(jnp.float32)
    for x, k in pairs:
      if isinstance(x, Upsampled):
        total += _convolve_upsampled(x, k, out.shape[1:3])
    return total.astype(self.dtype)


def _values(part):
  return part.values if isinstance(part, Upsampled) else part


def _convolve_upsampled(
    x: Upsampled, kernel: jax.Array, size: Sequence[int]
) -> jax.Array:
  """Returns the convolution of a map at a size (H, W), float32 [B, H, W, D].

  The kernel is [k, k, C, D], in the dtype of the products.
  """
  sources = x.values.shape[1:3]
  rows, cols = (
      resizing.shifted_matrices(target, source, taps, x.align_corners)
      for target, source, taps in zip(
          size, sources, kernel.shape[:2], strict=True
      )
  )
  x = jnp.einsum(
      "bhwc,ijcd->bhwijd",
      x.values.astype(kernel.dtype),
      kernel,
      preferred_element_type=jnp.float32,
  )
  x = products.einsum("iHh,bhwijd->bHwjd", rows, x)
  return products.einsum("jWw,bHwjd->bHWd", cols, x)
