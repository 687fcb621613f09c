"""Atrous spatial pyramid pooling, of DeepLabV3 and DeepLabV3+.

Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, https://arxiv.org/abs/1706.05587.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import dropout
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import SeparableConvBNAct


class ASPP(nn.Module):
  """Convolves each position at several rates, beside the mean of the image.

  A 1x1 convolution, a 3x3 convolution for each rate and the mean of the image
  are concatenated and projected. The branch of the mean is float32: it has
  only B samples per channel for its batch norm, and hardly any work. The
  fields are `DeepLabV3PlusHead`'s; `dropout_rate` is of the projection.
  """

  channels: int
  rates: tuple[int, ...]
  project_kernel_size: int
  separable: bool
  dropout_rate: float
  channel_dropout: bool
  norm: Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, channels]."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
    mean = ConvBNAct(self.channels, 1, norm=self.norm, name="image_pool")(
        mean, train=train
    )
    # The bilinear upsampling of the papers, from a single pixel.
    mean = jnp.broadcast_to(mean, (*x.shape[:3], self.channels))
    # In mmsegmentation's order; the other codes have the mean last.
    maps = [mean.astype(self.dtype)]
    maps.append(ConvBNAct(self.channels, 1, name="conv", **kw)(x, train=train))
    conv = SeparableConvBNAct if self.separable else ConvBNAct
    # Named by position: a model may be evaluated at other rates.
    for i, rate in enumerate(self.rates, start=1):
      branch = conv(self.channels, dilation=rate, name=f"atrous{i}", **kw)
      maps.append(branch(x, train=train))
    project = ConvBNAct(
        self.channels, self.project_kernel_size, name="project", **kw
    )
    return dropout(
        project(jnp.concatenate(maps, axis=-1), train=train),
        self.dropout_rate,
        channel_dropout=self.channel_dropout,
        train=train,
        name="dropout",
    )
