"""Dual attention head (DANet).

Reference: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR
2019, https://arxiv.org/abs/1809.02983, with the authors' code
(junfu1115/DANet), whose channel attention differs from the paper's; see
`channel_attention`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models.layers import attention
from ctxseg_jax.models.layers import Classifier
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm

# PyTorch's default: unscaled products need small queries and keys.
_projection_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def channel_attention(x: jax.Array) -> jax.Array:
  """Averages channels by their dissimilarity.

  Paper: Eq. (3), but as in the code with softmax(max - similarity), the
  maximum of each row, where the paper has softmax(similarity). A softmax does
  not change when all its arguments shift, so the maximum need not be taken.

  Args:
    x: [B, N, C].

  Returns:
    [B, N, C] in the dtype of x; similarities, softmax and sums are float32.
  """
  f32 = jnp.float32
  # Sums over N, then exponentiated: float32 must be full float32, which GPUs
  # and TPUs only do when asked.
  similarity = jnp.einsum(
      "bnc,bnd->bcd",
      x,
      x,
      preferred_element_type=f32,
      precision=jax.lax.Precision.HIGHEST,
  )
  weights = jax.nn.softmax(-similarity, axis=-1).astype(x.dtype)
  return jnp.einsum(
      "bcd,bnd->bnc", weights, x, preferred_element_type=f32
  ).astype(x.dtype)


class PositionAttention(nn.Module):
  """Adds to each position a weighted mean over all (paper: Eqs. 1 and 2).

  The inner products are not scaled. The factor of the mean starts at 0, so
  that the module starts as the identity.

  Attributes:
    query_channels: Width of queries and keys; None is an eighth of the input.
    chunk_size: See `layers.attention`.
    dtype: Compute dtype; softmax is float32.
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


class DANetHead(nn.Module):
  """Sums a branch with position attention and one with channel attention.

  The branches have classifiers of their own, which the code supervises with
  the same loss and weight as the sum's; only the sum's is the prediction.

  Attributes:
    num_classes: Number of classes.
    channels: Width C of both branches (a quarter of stage 4).
    query_channels: See `PositionAttention`.
    chunk_size: See `layers.attention`.
    supervise_branches: Whether the branches have classifiers.
    dropout_rate: Dropout before the classifiers.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms.
    dtype: Compute dtype; softmax and logits are float32.
  """

  num_classes: int
  channels: int = 512
  query_channels: int | None = None
  chunk_size: int = 512
  supervise_branches: bool = True
  dropout_rate: float = 0.1
  channel_dropout: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; only `"stage4"` is read.
      train: Whether batch norm uses batch statistics, and dropout drops.

    Returns:
      `"logits"` and, if `supervise_branches`, `"position_logits"` and
      `"channel_logits"`, each [B, h, w, num_classes].
    """
    kw = dict(norm=self.norm, dtype=self.dtype)

    def branch(name, attend):
      x = ConvBNAct(self.channels, name=f"{name}_reduce", **kw)(
          features["stage4"], train=train
      )
      return ConvBNAct(self.channels, name=f"{name}_conv", **kw)(
          attend(x), train=train
      )

    def classify(x, name):
      return Classifier(
          self.num_classes,
          self.dropout_rate,
          self.channel_dropout,
          name=name,
      )(x, train=train)

    position = branch(
        "position",
        PositionAttention(
            self.query_channels,
            self.chunk_size,
            self.dtype,
            name="position_attention",
        ),
    )
    channel = branch("channel", ChannelAttention(name="channel_attention"))
    out = {"logits": classify(position + channel, "classifier")}
    if self.supervise_branches:
      out["position_logits"] = classify(position, "position_classifier")
      out["channel_logits"] = classify(channel, "channel_classifier")
    return out
