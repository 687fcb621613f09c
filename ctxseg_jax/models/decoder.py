"""The decoder of DeepLabV3+, which MFNet shares.

Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation", ECCV 2018, https://arxiv.org/abs/1802.02611.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing


def decode(
    head: nn.Module,
    x: jax.Array,
    low: jax.Array,
    *,
    separable: bool = False,
    train: bool,
) -> jax.Array:
  """Classifies upsampled features beside reduced ones of stage 1.

  The layers (`low`, `decoder1`, `decoder2`, `classifier`) belong to the head.

  Args:
    head: The calling head. Its fields `channels`, `low_channels`,
      `decoder_dropout_rate`, `align_corners`, `norm`, `dtype` and those of
      `classify` are used.
    x: What the head made of the deepest features, [B, h, w, C].
    low: Features of stage 1, [B, H1, W1, C1]; so are the logits.
    separable: Make the 3x3 convolutions depthwise separable.
    train: As for heads.
  """
  kw = dict(norm=head.norm, dtype=head.dtype)
  low = layers.convolve(
      head, low, head.low_channels, 1, name="low", train=train
  )
  size = low.shape[1:3]
  x = resizing.resize_bilinear(x, size, align_corners=head.align_corners)
  x = jnp.concatenate([x.astype(head.dtype), low], axis=-1)
  conv = layers.SeparableConvBNAct if separable else layers.ConvBNAct
  x = conv(head.channels, name="decoder1", **kw)(x, train=train)
  drop = dict(channel_dropout=head.channel_dropout, name="decoder_dropout")
  x = layers.dropout(x, head.decoder_dropout_rate, train=train, **drop)
  x = conv(head.channels, name="decoder2", **kw)(x, train=train)
  return layers.classify(head, x, train=train)
