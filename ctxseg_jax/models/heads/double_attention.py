"""Double attention head (A2-Net).

Reference: Chen et al., "A^2-Nets: Double Attention Networks", NeurIPS 2018,
https://arxiv.org/abs/1810.11579. The paper classifies images and video, and
its code was not released; the head around the block is that of the non-local
one (mmsegmentation's NLHead).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import products

# What the distributing softmax runs over; see `DoubleAttentionHead`.
Distribution = Literal["descriptors", "positions"]


def double_attention(
    features: jax.Array,
    gather_logits: jax.Array,
    distribute_logits: jax.Array,
    softmax: Distribution = "descriptors",
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Gathers global descriptors from all positions and distributes them.

  Paper: G = A softmax(B)^T, the softmax over positions; Z = G softmax(V).

  Args:
    features: A, [B, N, C].
    gather_logits: B, [B, N, K].
    distribute_logits: V, [B, N, K].
    softmax: What the softmax of V runs over; see `DoubleAttentionHead`.

  Returns:
    Z, [B, N, C], and the softmaxes of B and V, [B, N, K], in the dtype of the
    features; softmaxes and sums are computed in float32.
  """
  dtype = features.dtype

  def weights(logits, axis):
    return jax.nn.softmax(logits.astype(jnp.float32), axis).astype(dtype)

  gather = weights(gather_logits, 1)
  distribute = weights(distribute_logits, -1 if softmax == "descriptors" else 1)
  x = products.einsum("bnk,bnc->bkc", gather, features).astype(dtype)
  x = products.einsum("bnk,bkc->bnc", distribute, x).astype(dtype)
  return x, gather, distribute


class DoubleAttentionBlock(nn.Module):
  """Adds to each position a mixture of global descriptors.

  The output projection starts at 0: the block starts as the identity, as
  non-local blocks without batch norm do (the paper does not say). The fields
  are `DoubleAttentionHead`'s.
  """

  reduction: int = 4
  num_descriptors: int | None = None
  softmax: Distribution = "descriptors"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C]."""
    b, h, w, c = x.shape
    width = max(c // self.reduction, 1)
    num_descriptors = self.num_descriptors or width
    pixels = x.reshape(b, h * w, c)

    def project(width, name):
      kw = dict(kernel_init=nn.initializers.he_normal(), dtype=self.dtype)
      return nn.Dense(width, name=name, **kw)(pixels)

    z, *weights = double_attention(
        project(width, "features"),
        project(num_descriptors, "gather"),
        project(num_descriptors, "distribute"),
        self.softmax,
    )
    kw = dict(kernel_init=nn.initializers.zeros, dtype=self.dtype)
    z = nn.Dense(c, name="out", **kw)(z)
    z = z.reshape(b, h, w, c)
    gather, distribute = (x.reshape(b, h, w, -1) for x in weights)
    layers.expose(self, gather_weights=gather, distribute_weights=distribute)
    layers.expose(self, before=x, added=z)
    return x + z


class DoubleAttentionHead(layers.CheckedModule):
  """A double attention block between two 3x3 convolutions, beside its input.

  Attributes:
    channels: Width C of the features the block works on.
    reduction: C over the width m of the descriptors (paper: 4).
    num_descriptors: Number n of descriptors; None is as many as m (paper).
    softmax: What the distributing softmax runs over: the "descriptors" of each
      position (the paper), or "positions" (widespread PyTorch ports).
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  reduction: bounds.PositiveInt = 4
  num_descriptors: bounds.PositiveInt | None = None
  softmax: Distribution = "descriptors"
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    inputs = features["stage4"]
    x = layers.convolve(self, inputs, self.channels, name="conv1", train=train)
    fields = (self.reduction, self.num_descriptors, self.softmax, self.dtype)
    x = DoubleAttentionBlock(*fields, name="double_attention")(x)
    x = layers.convolve(self, x, self.channels, name="conv2", train=train)
    x = jnp.concatenate([inputs.astype(x.dtype), x], axis=-1)
    x = layers.convolve(self, x, self.channels, name="conv_concat", train=train)
    return {"logits": layers.classify(self, x, train=train)}
