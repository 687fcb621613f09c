"""The decoder of DeepLabV3+, which MFNet shares.

Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation", ECCV 2018, https://arxiv.org/abs/1802.02611.
"""

import jax
import jax.numpy as jnp

from ctxseg_jax.models.layers import Classifier
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import dropout
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import SeparableConvBNAct
from ctxseg_jax.models.resizing import resize_bilinear


def decode(
    x: jax.Array,
    low: jax.Array,
    *,
    train: bool,
    num_classes: int,
    channels: int,
    low_channels: int,
    separable: bool = False,
    decoder_dropout_rate: float,
    dropout_rate: float,
    channel_dropout: bool,
    align_corners: bool,
    norm: Norm,
    dtype: jnp.dtype,
) -> jax.Array:
  """Classifies upsampled features beside reduced ones of stage 1.

  A function and no module: its layers (`low`, `decoder1`, `decoder2`,
  `classifier`) belong to the head that calls it.

  Args:
    x: What the head made of the deepest features, [B, h, w, C].
    low: Features of stage 1, [B, H1, W1, C1].
    train: Whether batch norm uses batch statistics, and dropout drops.
    num_classes: Number of classes.
    channels: Width of the two 3x3 convolutions.
    low_channels: Width to which stage 1 is reduced.
    separable: Make the 3x3 convolutions depthwise separable.
    decoder_dropout_rate: Dropout between them.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements, in both.
    align_corners: Convention of the upsampling; see `resizing.resize_matrix`.
    norm: Settings of the batch norms.
    dtype: Compute dtype; the logits are float32.

  Returns:
    [B, H1, W1, num_classes].
  """
  kw = dict(norm=norm, dtype=dtype)
  low = ConvBNAct(low_channels, 1, name="low", **kw)(low, train=train)
  x = resize_bilinear(x, low.shape[1:3], align_corners=align_corners)
  x = jnp.concatenate([x.astype(dtype), low], axis=-1)
  conv = SeparableConvBNAct if separable else ConvBNAct
  x = conv(channels, name="decoder1", **kw)(x, train=train)
  x = dropout(
      x,
      decoder_dropout_rate,
      channel_dropout=channel_dropout,
      train=train,
      name="decoder_dropout",
  )
  x = conv(channels, name="decoder2", **kw)(x, train=train)
  return Classifier(
      num_classes, dropout_rate, channel_dropout, name="classifier"
  )(x, train=train)
