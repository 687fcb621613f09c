"""A five-layer backbone for the quickstart, with a small receptive field.

It sees 39 pixels; behind one more 3x3 convolution and bilinear upsampling a
prediction sees 57 at most, less than the 81 that separate an object of *context
scenes* from its cue: such a network knows the scene only through its context
head.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers


class ShallowNet(layers.CheckedModule):
  """Five 3x3 convolutions with batch norm and ReLU, output stride 4.

  Attributes:
    channels: Width of all layers but the first, which has half of it.
  """

  channels: bounds.PositiveInt = 64
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> layers.Arrays:
    """Maps images [B, H, W, 3] to `stem`, `stage1` ... `stage4`."""
    table = {
        "stem": dict(stride=2),
        "stage1": dict(stride=2),
        "stage2": {},
        "stage3": dict(dilation=2),
        "stage4": {},
    }
    features = {}
    x = images.astype(self.dtype)
    for name, options in table.items():
      width = self.channels // 2 if name == "stem" else self.channels
      x = layers.convolve(self, x, width, name=name, train=train, **options)
      features[name] = x
    return features
