"""The decoder of DeepLabV3+ (see there), which MFNet shares."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models import coarse
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

  The layers belong to the calling head, and their options are its fields.

  Args:
    head: The calling head.
    x: What it made of the deepest features, [B, h, w, C].
    low: Features of stage 1, [B, H1, W1, C1]; the logits have its size.
    separable: Make the 3x3 convolutions depthwise separable.
    train: As for heads.
  """
  kw = dict(norm=head.norm, dtype=head.dtype)
  reduced = head.low_channels
  low = layers.convolve(head, low, reduced, 1, name="low", train=train)
  if separable:
    conv = layers.SeparableConvBNAct
    x = resizing.resize_bilinear(
        x, low.shape[1:3], align_corners=head.align_corners
    )
    x = jnp.concatenate([x.astype(head.dtype), low], axis=-1)
  else:
    conv = layers.ConvBNAct
    x = [coarse.Upsampled(x, head.align_corners), low]
  x = conv(head.channels, name="decoder1", **kw)(x, train=train)
  drop = dict(channel_dropout=head.channel_dropout, name="decoder_dropout")
  x = layers.dropout(x, head.decoder_dropout_rate, train=train, **drop)
  x = conv(head.channels, name="decoder2", **kw)(x, train=train)
  return layers.classify(head, x, train=train)
