"""Fully convolutional head with a squeeze-and-excitation block (FCN-SE).

The baseline of Zhong et al., "Squeeze-and-Attention Networks for Semantic
Segmentation", CVPR 2020, https://arxiv.org/abs/1909.03402, after Hu et al.,
"Squeeze-and-Excitation Networks", CVPR 2018. Its residual function has two
convolutions (the text under Eq. 1). The paper does not say where the block
stands; here it is between the convolution of an FCN head and its classifier.
"""

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers


class FCNSEHead(layers.CheckedModule):
  """An FCN head whose features are gated by their mean over the image.

  Attributes:
    channels: Width C; None is a quarter of stage 4's.
    squeeze_channels: Width of the layer between the two that make the gate
      (paper: 4).
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt | None = None
  squeeze_channels: bounds.PositiveInt = 4
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    x = features["stage4"]
    channels = self.channels or x.shape[-1] // 4
    x = layers.convolve(self, x, channels, name="reduce", train=train)
    # Paper: Eq. (3).
    gate = layers.squeeze_excite(x, self.squeeze_channels)
    layers.expose(self, gates=gate[:, 0, 0])
    kw = dict(channels=channels, train=train)
    residual = layers.convolve(self, x, name="conv1", **kw)
    residual = layers.convolve(self, residual, act=None, name="conv2", **kw)
    # Paper: Eq. (2).
    return {"logits": layers.classify(self, gate * x + residual, train=train)}
