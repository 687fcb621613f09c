"""Fully convolutional head, the baseline of every context head.

Reference: Long et al., "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, in the forms that dilated ResNets carry:
PyTorch-Encoding's (the default) and mmsegmentation's (two convolutions, their
input concatenated, one more).
"""

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers


class FCNHead(layers.CheckedModule):
  """3x3 convolutions and a classifier; also the usual auxiliary head.

  Attributes:
    stage: The feature map to read.
    channels: Width C; None is a quarter of the input's (PyTorch-Encoding).
    num_convs: Number of 3x3 convolutions.
    concat_input: Concatenate the input behind the last one and convolve again
      (mmsegmentation).
    dilation: Dilation of the convolutions (6 in mmsegmentation's FCN-D6).
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  stage: layers.Stage = "stage4"
  channels: bounds.PositiveInt | None = None
  num_convs: bounds.NonNegativeInt = 1
  concat_input: bool = False
  dilation: bounds.PositiveInt = 1
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps a feature map to `"logits"`, [B, h, w, num_classes]."""
    x = inputs = features[self.stage]
    channels = self.channels or inputs.shape[-1] // 4
    for i in range(1, self.num_convs + 1):
      kw = dict(dilation=self.dilation, name=f"conv{i}", train=train)
      x = layers.convolve(self, x, channels, **kw)
    if self.concat_input:
      x = jnp.concatenate([inputs, x], axis=-1)
      x = layers.convolve(self, x, channels, name="conv_concat", train=train)
    return {"logits": layers.classify(self, x, train=train)}
