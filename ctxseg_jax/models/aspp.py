"""Atrous spatial pyramid pooling, of DeepLabV3 and DeepLabV3+ (see there)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models import coarse
from ctxseg_jax.models import layers


class ASPP(nn.Module):
  """Projects a 1x1 convolution, one 3x3 per rate and the mean of the image.

  The branch of the mean is float32: it has only B samples per channel for its
  batch norm (which needs the axis of `norm` over small batches per device),
  and hardly any work. The fields are `DeepLabV3PlusHead`'s; `dropout_rate` is
  of the projection.
  """

  channels: int
  rates: tuple[int, ...]
  project_kernel_size: int
  separable: bool
  dropout_rate: float
  channel_dropout: bool
  norm: layers.Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, channels]."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
    pool = dict(dtype=jnp.float32, name="image_pool", train=train)
    mean = layers.convolve(self, mean, self.channels, 1, **pool)
    # In mmsegmentation's order; the other codes have the mean last.
    local = layers.convolve(self, x, self.channels, 1, name="conv", train=train)
    maps = [coarse.Upsampled(mean), local]
    conv = layers.SeparableConvBNAct if self.separable else layers.ConvBNAct
    # Named by position: a model may be evaluated at other rates.
    for i, rate in enumerate(self.rates, start=1):
      branch = conv(self.channels, dilation=rate, name=f"atrous{i}", **kw)
      maps.append(branch(x, train=train))
    project = dict(kernel_size=self.project_kernel_size, name="project")
    x = layers.convolve(self, maps, self.channels, train=train, **project)
    drop = dict(channel_dropout=self.channel_dropout, name="dropout")
    return layers.dropout(x, self.dropout_rate, train=train, **drop)
