"""Heads with atrous spatial pyramid pooling (DeepLabV3 and DeepLabV3+).

References: Chen et al., "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, https://arxiv.org/abs/1706.05587 (DeepLabV3), and
"Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation", ECCV 2018, https://arxiv.org/abs/1802.02611 (DeepLabV3+). The
defaults of DeepLabV3+ are those of jfzhang95/pytorch-deeplab-xception; the
forms of PyTorch-Encoding and mmsegmentation are options.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models.decoder import decode
from ctxseg_jax.models.layers import Classifier
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import dropout
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import SeparableConvBNAct


class ASPP(nn.Module):
  """Looks at each position at several rates, and at the whole image.

  A 1x1 convolution, a 3x3 convolution for each rate and the mean of the image
  are concatenated and projected. The branch of the mean is float32: it has
  only B samples per channel for its batch norm, and hardly any work.

  Attributes:
    channels: Width of the branches and of the result.
    rates: Dilations of the 3x3 branches.
    project_kernel_size: Side of the projection's kernel.
    separable: Make the 3x3 branches depthwise separable.
    dropout_rate: Dropout after the projection.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms.
    dtype: Compute dtype.
  """

  channels: int
  rates: tuple[int, ...]
  project_kernel_size: int
  separable: bool
  dropout_rate: float
  channel_dropout: bool
  norm: Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, channels]."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
    mean = ConvBNAct(self.channels, 1, norm=self.norm, name="image_pool")(
        mean, train=train
    )
    # The bilinear upsampling of the papers, from a single pixel.
    mean = jnp.broadcast_to(mean, (*x.shape[:3], self.channels))
    # In mmsegmentation's order; the other codes have the mean last.
    maps = [mean.astype(self.dtype)]
    maps.append(ConvBNAct(self.channels, 1, name="conv", **kw)(x, train=train))
    conv = SeparableConvBNAct if self.separable else ConvBNAct
    # Named by position: a model may be evaluated at other rates.
    for i, rate in enumerate(self.rates, start=1):
      maps.append(
          conv(self.channels, dilation=rate, name=f"atrous{i}", **kw)(
              x, train=train
          )
      )
    x = ConvBNAct(
        self.channels, self.project_kernel_size, name="project", **kw
    )(jnp.concatenate(maps, axis=-1), train=train)
    return dropout(
        x,
        self.dropout_rate,
        channel_dropout=self.channel_dropout,
        train=train,
        name="dropout",
    )


class DeepLabV3Head(nn.Module):
  """Atrous spatial pyramid pooling and a classifier.

  PyTorch-Encoding: `refine=True, dropout_rate=0.1`. mmsegmentation:
  `channels=512, project_kernel_size=3, aspp_dropout_rate=0.0,
  dropout_rate=0.1, channel_dropout=True`.

  Attributes:
    num_classes: Number of classes.
    channels: Width C (paper: 256).
    rates: Dilations of the 3x3 branches: 12, 24, 36 at output stride 8, the
      backbones' default; 6, 12, 18 at 16. The parameters are the same.
    project_kernel_size: 1 (paper) or 3 (mmsegmentation).
    refine: Convolve 3x3 once more before the classifier (PyTorch-Encoding).
    aspp_dropout_rate: Dropout after the projection.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements, in both.
    norm: Settings of the batch norms. The image's mean gives B samples per
      channel, so that without its axis small shares per device have no
      statistics to speak of.
    dtype: Compute dtype; the branch of the mean and the logits are float32.
  """

  num_classes: int
  channels: int = 256
  rates: tuple[int, ...] = (12, 24, 36)
  project_kernel_size: int = 1
  refine: bool = False
  aspp_dropout_rate: float = 0.5
  dropout_rate: float = 0.0
  channel_dropout: bool = False
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; only `"stage4"`, [B, h, w, C4], is read.
      train: Whether batch norm uses batch statistics, and dropout drops.

    Returns:
      `"logits"`, [B, h, w, num_classes].
    """
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = ASPP(
        self.channels,
        self.rates,
        self.project_kernel_size,
        False,
        self.aspp_dropout_rate,
        self.channel_dropout,
        name="aspp",
        **kw,
    )(features["stage4"], train=train)
    if self.refine:
      x = ConvBNAct(self.channels, name="refine", **kw)(x, train=train)
    logits = Classifier(
        self.num_classes,
        self.dropout_rate,
        self.channel_dropout,
        name="classifier",
    )(x, train=train)
    return {"logits": logits}


class DeepLabV3PlusHead(nn.Module):
  """Atrous spatial pyramid pooling, decoded with the features of stage 1.

  mmsegmentation: `channels=512, separable=True, project_kernel_size=3,
  aspp_dropout_rate=0.0, decoder_dropout_rate=0.0, channel_dropout=True`.

  Attributes:
    num_classes: Number of classes.
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
    align_corners: Convention of upsampling to the size of stage 1; see
      `layers.resize_matrix`. True in pytorch-deeplab-xception, False in
      mmsegmentation; the model has the same field for the logits.
    norm: Settings of the batch norms. The image's mean gives B samples per
      channel, so that without its axis small shares per device have no
      statistics to speak of.
    dtype: Compute dtype; the branch of the mean and the logits are float32.
  """

  num_classes: int
  channels: int = 256
  low_channels: int = 48
  rates: tuple[int, ...] = (12, 24, 36)
  project_kernel_size: int = 1
  separable: bool = False
  aspp_dropout_rate: float = 0.5
  decoder_dropout_rate: float = 0.5
  dropout_rate: float = 0.1
  channel_dropout: bool = False
  align_corners: bool = False
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; `"stage1"`, [B, H1, W1, C1], and `"stage4"`
        are read.
      train: Whether batch norm uses batch statistics, and dropout drops.

    Returns:
      `"logits"`, [B, H1, W1, num_classes]: at stride 4.
    """
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = ASPP(
        self.channels,
        self.rates,
        self.project_kernel_size,
        self.separable,
        self.aspp_dropout_rate,
        self.channel_dropout,
        name="aspp",
        **kw,
    )(features["stage4"], train=train)
    logits = decode(
        x,
        features["stage1"],
        train=train,
        num_classes=self.num_classes,
        channels=self.channels,
        low_channels=self.low_channels,
        separable=self.separable,
        decoder_dropout_rate=self.decoder_dropout_rate,
        dropout_rate=self.dropout_rate,
        channel_dropout=self.channel_dropout,
        align_corners=self.align_corners,
        **kw,
    )
    return {"logits": logits}
