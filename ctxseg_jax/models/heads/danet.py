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
from ctxseg_jax.models.attention import attention
from ctxseg_jax.models.layers import CheckedModule
from ctxseg_jax.models.layers import classify
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import Outputs

# PyTorch's default: unscaled products need small queries and keys.
_projection_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def channel_attention(x: jax.Array) -> jax.Array:
  """Averages channels by their dissimilarity.

  Paper: Eq. (3), but with the code's softmax(max - similarity), the maximum of
  each row, for softmax(similarity). A softmax is invariant to the maximum, so
  it is left out.

  Args:
    x: [B, N, C].

  Returns:
    [B, N, C] in the dtype of x; similarities, softmax and sums are float32.
  """
  # Sums over N, then exponentiated: float32 must be full float32, which GPUs
  # and TPUs only do when asked.
  kw = dict(preferred_element_type=jnp.float32)
  precision = jax.lax.Precision.HIGHEST
  similarity = jnp.einsum("bnc,bnd->bcd", x, x, precision=precision, **kw)
  weights = jax.nn.softmax(-similarity, axis=-1).astype(x.dtype)
  return jnp.einsum("bcd,bnd->bnc", weights, x, **kw).astype(x.dtype)


class PositionAttention(nn.Module):
  """Adds to each position a weighted mean over all (paper: Eqs. 1 and 2).

  The inner products are not scaled. The factor of the mean starts at 0, so
  that the module starts as the identity. The fields are `DANetHead`'s.
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
      return nn.Dense(
          channels, kernel_init=_projection_init, dtype=self.dtype, name=name
      )(pixels)

    y = attention(
        project(width, "query"),
        project(width, "key"),
        project(c, "value"),
        chunk_size=self.chunk_size,
    )
    gamma = self.param("gamma", nn.initializers.zeros, ())
    return x + gamma.astype(x.dtype) * y.reshape(b, h, w, c)


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
    return x + gamma.astype(x.dtype) * y.reshape(b, h, w, c)


class DANetHead(CheckedModule):
  """Sums a branch with position attention and one with channel attention.

  The branches have classifiers of their own, which the code supervises with
  the same loss and weight as the sum's; only the sum's is the prediction.

  Attributes:
    num_classes: Number of classes.
    channels: Width C of both branches (a quarter of stage 4).
    query_channels: Width of queries and keys; None is an eighth of C.
    chunk_size: Largest number of queries at a time; bounds the memory, and
      changes no result. See `attention.attention`.
    supervise_branches: Whether the branches have classifiers.
    dropout_rate: Dropout before the classifiers.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms.
    dtype: Compute dtype; softmax and logits are float32.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  query_channels: bounds.PositiveInt | None = None
  chunk_size: bounds.PositiveInt = 512
  supervise_branches: bool = True
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: Outputs, *, train: bool) -> Outputs:
    """Maps `"stage4"` to class scores, [B, h, w, num_classes] each.

    Returns:
      `"logits"` and, if `supervise_branches`, `"position_logits"` and
      `"channel_logits"`.
    """
    kw = dict(norm=self.norm, dtype=self.dtype)

    def branch(name, attend):
      x = features["stage4"]
      x = ConvBNAct(self.channels, name=f"{name}_reduce", **kw)(x, train=train)
      x = attend(x)
      return ConvBNAct(self.channels, name=f"{name}_conv", **kw)(x, train=train)

    attend = PositionAttention(
        self.query_channels,
        self.chunk_size,
        self.dtype,
        name="position_attention",
    )
    position = branch("position", attend)
    channel = branch("channel", ChannelAttention(name="channel_attention"))
    out = {"logits": classify(self, position + channel, train=train)}
    if self.supervise_branches:
      for name, x in (("position", position), ("channel", channel)):
        out[f"{name}_logits"] = classify(
            self, x, train=train, name=f"{name}_classifier"
        )
    return out
