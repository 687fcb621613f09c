"""One vector of class scores per image: average pooling, a linear layer.

The tail of the CIFAR-10 networks that the paper on context encoding compares
(its 8x8 pooling of 8x8 maps is the mean over all positions).
"""

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers


class PooledHead(layers.CheckedModule):
  """Classifies images, not pixels.

  Attributes:
    stage: The feature map to read.
  """

  num_classes: bounds.PositiveInt
  stage: layers.Stage = "stage3"

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps backbone features to `"logits"`, float32 [B, num_classes]."""
    del train
    x = jnp.mean(features[self.stage], axis=(1, 2), dtype=jnp.float32)
    return {"logits": layers.dense(self.num_classes, name="classifier")(x)}
