"""The heads of DeepLabV2: LargeFOV and atrous spatial pyramid pooling.

Reference: Chen et al., "DeepLab: Semantic Image Segmentation with Deep
Convolutional Nets, Atrous Convolution, and Fully Connected CRFs",
https://arxiv.org/abs/1606.00915, with kazuto1011/deeplab-pytorch.
"""

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers

# Of layers that give scores.
score_init = nn.initializers.normal(0.01)


class DeepLabV2Head(layers.CheckedModule):
  """Sums the scores of branches that differ in their dilation.

  The defaults are for ResNet-101; VGG16 has `channels=1024`, and is LargeFOV
  with `rates=(12,)`.

  Attributes:
    channels: Width of the two hidden layers, fc6 and fc7, of every branch
      (VGG16: 1024); None is no hidden layer (ResNet-101).
    rates: Dilations of the branches (ASPP-L: 6, 12, 18, 24).
    dropout_rate: Dropout of elements after the hidden layers.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt | None = None
  rates: bounds.PositiveInts = (6, 12, 18, 24)
  dropout_rate: bounds.DropoutRate = 0.5
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    x = features["stage4"]
    # Named by position: a model may be evaluated at other rates.
    branches = enumerate(self.rates, start=1)
    return {"logits": sum(self._branch(x, i, r, train) for i, r in branches)}

  def _branch(self, x, i, rate, train):
    if self.channels is None:
      kw = dict(dilation=rate, kernel_init=score_init, dtype=jnp.float32)
      return layers.conv(self.num_classes, name=f"score{i}", **kw)(x)
    kw = dict(dtype=self.dtype)
    x = layers.conv(self.channels, dilation=rate, name=f"fc6_{i}", **kw)(x)
    drop = dict(channel_dropout=False, name=f"dropout6_{i}")
    x = layers.dropout(nn.relu(x), self.dropout_rate, train=train, **drop)
    x = nn.relu(layers.conv(self.channels, 1, name=f"fc7_{i}", **kw)(x))
    kw = dict(channel_dropout=False, kernel_init=score_init)
    return layers.Classifier(
        self.num_classes, self.dropout_rate, name=f"classifier{i}", **kw
    )(x, train=train)


class DeepLabV2ConcatHead(layers.CheckedModule):
  """What a summary of SCA calls DeepLabV2: branches concatenated, not summed.

  The branches of DeepLabV3, but as wide as there are classes, with a projection
  that ends in batch norm, ReLU and dropout: the logits are not negative, and
  half of them are dropped in training. Kept to compare with; see
  https://arxiv.org/abs/1711.08278 for SCA.

  Attributes:
    channels: Width of the branches; None is the number of classes.
    rates: Dilations of the 3x3 branches.
    dropout_rate: Dropout of elements of the logits.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt | None = None
  rates: tuple[bounds.PositiveInt, ...] = (6, 12, 18)
  dropout_rate: bounds.DropoutRate = 0.5
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    channels = self.channels or self.num_classes
    x = features["stage4"]
    maps = [layers.convolve(self, x, channels, 1, name="conv", train=train)]
    for i, rate in enumerate(self.rates, start=1):
      kw = dict(dilation=rate, name=f"atrous{i}", train=train)
      maps.append(layers.convolve(self, x, channels, **kw))
    mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
    kw = dict(dtype=jnp.float32, train=train)
    mean = layers.convolve(self, mean, channels, 1, name="image_pool", **kw)
    maps.append(jnp.broadcast_to(mean, maps[0].shape))
    x = jnp.concatenate([m.astype(jnp.float32) for m in maps], axis=-1)
    x = layers.convolve(self, x, self.num_classes, 1, name="project", **kw)
    drop = dict(channel_dropout=False, name="dropout")
    return {"logits": layers.dropout(x, self.dropout_rate, train=train, **drop)}
