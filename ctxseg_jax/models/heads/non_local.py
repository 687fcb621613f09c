"""Non-local head.

Reference: Wang et al., "Non-local Neural Networks", CVPR 2018,
https://arxiv.org/abs/1711.07971. The paper's block is for video; the head
around it is mmsegmentation's NLHead.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import attention
from ctxseg_jax.models import layers


class NonLocalBlock(nn.Module):
  """Adds to each position a weighted mean over all, by embedded similarity.

  Paper: z = W y + x with the embedded Gaussian, y = softmax(theta^T phi) g.
  The inner products are divided by the root of their width, as in
  mmsegmentation. The batch norm behind W starts with scale 0: the block starts
  as the identity. The fields are `NonLocalHead`'s.
  """

  reduction: int = 2
  chunk_size: int = 512
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C]."""
    b, h, w, c = x.shape
    width = max(c // self.reduction, 1)
    pixels = x.reshape(b, h * w, c)

    def project(name):
      kw = dict(kernel_init=nn.initializers.normal(0.01), dtype=self.dtype)
      return nn.Dense(width, name=name, **kw)(pixels)

    queries, keys, values = map(project, ("query", "key", "value"))
    scale = dict(scale=width**-0.5)
    attention.expose(self, queries, keys, (h, w), **scale)
    kw = dict(chunk_size=self.chunk_size, **scale)
    y = attention.attention(queries, keys, values, **kw)
    kw = dict(kernel_init=layers.conv_init, dtype=self.dtype)
    y = nn.Dense(c, use_bias=False, name="out", **kw)(y)
    kw = dict(scale_init=nn.initializers.zeros, dtype=self.dtype)
    y = layers.batch_norm(train=train, norm=self.norm, name="bn", **kw)(y)
    y = y.reshape(b, h, w, c)
    layers.expose(self, before=x, added=y)
    return x + y


class NonLocalHead(layers.CheckedModule):
  """A non-local block between two 3x3 convolutions, beside its input.

  Attributes:
    channels: Width C of the features the block works on.
    reduction: C over the channels of queries, keys and values.
    chunk_size: Largest number of queries at a time; bounds the memory only.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  reduction: bounds.PositiveInt = 2
  chunk_size: bounds.PositiveInt = 512
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    inputs = features["stage4"]
    x = layers.convolve(self, inputs, self.channels, name="conv1", train=train)
    x = NonLocalBlock(
        self.reduction, self.chunk_size, self.norm, self.dtype, name="non_local"
    )(x, train=train)
    x = layers.convolve(self, x, self.channels, name="conv2", train=train)
    x = jnp.concatenate([inputs.astype(x.dtype), x], axis=-1)
    x = layers.convolve(self, x, self.channels, name="conv_concat", train=train)
    return {"logits": layers.classify(self, x, train=train)}
