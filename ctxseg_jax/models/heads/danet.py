"""Dual attention head (DANet).

Reference: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR
2019, https://arxiv.org/abs/1809.02983, with the authors' code
(junfu1115/DANet), whose channel attention differs from the paper's; see
`channel_attention`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import attention
from ctxseg_jax.models import layers
from ctxseg_jax.models import products

# PyTorch's default: unscaled products need small queries and keys.
_projection_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def channel_attention(x: jax.Array) -> jax.Array:
  """Averages channels by their dissimilarity.

  Paper: Eq. (3), but with the code's softmax(max - similarity), the maximum of
  each row, for softmax(similarity). A softmax is invariant to the maximum, so
  it is left out. Maps [B, N, C] to its shape and dtype; similarities, softmax
  and sums are float32.
  """
  similarity = products.einsum("bnc,bnd->bcd", x, x)
  weights = jax.nn.softmax(-similarity, axis=-1).astype(x.dtype)
  return products.einsum("bcd,bnd->bnc", weights, x).astype(x.dtype)


class PositionAttention(nn.Module):
  """Adds to each position a weighted mean over all (paper: Eqs. 1 and 2).

  The inner products are not scaled. The factor of the mean starts at 0: the
  module starts as the identity. The fields are `DANetHead`'s.
  """

  query_channels: int | None = None
  chunk_size: int = 512
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C]."""
    b, h, w, c = x.shape
    width = self.query_channels or max(c // 8, 1)
    pixels = x.reshape(b, h * w, c)

    def project(channels, name):
      kw = dict(kernel_init=_projection_init, dtype=self.dtype, name=name)
      return nn.Dense(channels, **kw)(pixels)

    queries, keys = project(width, "query"), project(width, "key")
    values = project(c, "value")
    attention.expose(self, queries, keys, (h, w))
    kw = dict(chunk_size=self.chunk_size)
    y = attention.attention(queries, keys, values, **kw)
    gamma = self.param("gamma", nn.initializers.zeros, ())
    y = gamma.astype(x.dtype) * y.reshape(b, h, w, c)
    layers.expose(self, before=x, added=y)
    return x + y


class ChannelAttention(nn.Module):
  """Adds to each channel a weighted mean over all (paper: Eqs. 3 and 4).

  The factor of the mean starts at 0: the module starts as the identity.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C]."""
    b, h, w, c = x.shape
    y = channel_attention(x.reshape(b, h * w, c))
    gamma = self.param("gamma", nn.initializers.zeros, ())
    y = gamma.astype(x.dtype) * y.reshape(b, h, w, c)
    layers.expose(self, before=x, added=y)
    return x + y


class DANetHead(layers.CheckedModule):
  """Sums a branch with position attention and one with channel attention.

  The branches have classifiers of their own, which the code supervises with
  the same loss and weight as the sum's; only the sum's is the prediction.

  Attributes:
    channels: Width C of both branches (a quarter of stage 4).
    query_channels: Width of queries and keys; None is an eighth of C.
    chunk_size: Largest number of queries at a time; bounds the memory only.
    supervise_branches: Whether the branches have classifiers.
    dropout_rate: Dropout before the classifiers.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  query_channels: bounds.PositiveInt | None = None
  chunk_size: bounds.PositiveInt = 512
  supervise_branches: bool = True
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes].

    With `supervise_branches` also to `"position_logits"`, `"channel_logits"`.
    """
    fields = (self.query_channels, self.chunk_size, self.dtype)
    branches = {
        "position": PositionAttention(*fields, name="position_attention"),
        "channel": ChannelAttention(name="channel_attention"),
    }
    width = self.channels
    maps = {}
    for name, attend in branches.items():
      kw = dict(train=train, name=f"{name}_reduce")
      x = layers.convolve(self, features["stage4"], width, **kw)
      kw = dict(train=train, name=f"{name}_conv")
      maps[name] = layers.convolve(self, attend(x), width, **kw)
    x = maps["position"] + maps["channel"]
    out = {"logits": layers.classify(self, x, train=train)}
    if self.supervise_branches:
      for name, x in maps.items():
        kw = dict(train=train, name=f"{name}_classifier")
        out[f"{name}_logits"] = layers.classify(self, x, **kw)
    return out
