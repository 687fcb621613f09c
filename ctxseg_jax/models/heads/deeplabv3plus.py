"""Head with atrous spatial pyramid pooling and a decoder (DeepLabV3+).

Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for
Semantic Image Segmentation", ECCV 2018, https://arxiv.org/abs/1802.02611. The
defaults are those of jfzhang95/pytorch-deeplab-xception; mmsegmentation's form
is an option.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models.aspp import ASPP
from ctxseg_jax.models.decoder import decode


class DeepLabV3PlusHead(layers.CheckedModule):
  """Atrous spatial pyramid pooling, decoded with the features of stage 1.

  mmsegmentation: `channels=512, separable=True, project_kernel_size=3,
  aspp_dropout_rate=0.0, decoder_dropout_rate=0.0, channel_dropout=True`.

  Attributes:
    channels: Width of ASPP and decoder (paper: 256).
    low_channels: Width to which stage 1 is reduced (paper: 48).
    rates: Dilations of the 3x3 branches: 12, 24, 36 at output stride 8, the
      backbones' default; 6, 12, 18 at 16. The parameters are the same.
    project_kernel_size: 1 (paper) or 3 (mmsegmentation).
    separable: Make the 3x3 convolutions of the branches and of the decoder
      depthwise separable (mmsegmentation).
    aspp_dropout_rate: Dropout after the projection.
    decoder_dropout_rate: Dropout between the two convolutions of the decoder.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements, in all three.
    align_corners: Convention of all resizing of the network: True in
      pytorch-deeplab-xception, False in mmsegmentation.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 256
  low_channels: bounds.PositiveInt = 48
  rates: tuple[bounds.PositiveInt, ...] = (12, 24, 36)
  project_kernel_size: Literal[1, 3] = 1
  separable: bool = False
  aspp_dropout_rate: bounds.DropoutRate = 0.5
  decoder_dropout_rate: bounds.DropoutRate = 0.5
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = False
  align_corners: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` and `"stage1"` to `"logits"` at the size of stage 1."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = ASPP(
        self.channels,
        self.rates,
        self.project_kernel_size,
        separable=self.separable,
        dropout_rate=self.aspp_dropout_rate,
        channel_dropout=self.channel_dropout,
        name="aspp",
        **kw,
    )(features["stage4"], train=train)
    low = features["stage1"]
    logits = decode(self, x, low, separable=self.separable, train=train)
    return {"logits": logits}
