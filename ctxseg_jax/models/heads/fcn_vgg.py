"""The heads of fully convolutional VGG16: FCN-32s, FCN-8s and a dilated one.

Reference: Long et al., "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, https://arxiv.org/abs/1411.4038, with the offsets of
the authors' networks as in wkentaro/pytorch-fcn. The dilated form is the host
of Wang et al., "Neuron-level Selective Context Aggregation for Scene
Segmentation", 2017, https://arxiv.org/abs/1711.08278.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing

# Offsets of the crops that undo the padding of 100, each in pixels of the map
# that is cropped (the authors' networks).
OFFSET_32S = 19
OFFSET_POOL4 = 5
OFFSET_POOL3 = 9
OFFSET_8S = 31


class FCNVGGHead(layers.CheckedModule):
  """The fully connected layers of VGG16 as convolutions, and a classifier.

  The forms "32s" and "8s" read the backbone `vgg16` with `form="fcn"` and
  return logits at the image size. Their transposed convolutions are bilinear,
  have no parameters and are not trained, as in pytorch-fcn; the paper fixes
  the last one and trains the two smaller ones of FCN-8s from there.

  Attributes:
    form: "32s"; "8s", which adds the scores of pool4 and pool3; or "dilated",
      whose 7x7 convolution is padded to keep the size of the map.
    channels: Width of the two layers before the classifier (paper: 4096).
    at_once: Scale pool4 by 0.01 and pool3 by 0.0001, to train FCN-8s in one
      run; without, the authors train in three, each from the one before.
    dropout_rate: Dropout after both layers.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  form: Literal["32s", "8s", "dilated"] = "dilated"
  channels: bounds.PositiveInt = 4096
  at_once: bool = True
  dropout_rate: bounds.DropoutRate = 0.5
  channel_dropout: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, at the image size but for "dilated"."""
    if self.form != "dilated" and "image" not in features:
      raise ValueError(
          f"form={self.form!r} crops the padding of a backbone 'vgg16' with"
          " form='fcn': choose that, or form='dilated'"
      )
    kw = dict(kernel_init=nn.initializers.normal(0.01), dtype=self.dtype)
    x = features["stage4"].astype(self.dtype)
    padding = 3 if self.form == "dilated" else 0
    x = layers.conv(self.channels, 7, padding=padding, name="fc6", **kw)(x)
    drop = dict(channel_dropout=self.channel_dropout, name="dropout6")
    x = layers.dropout(nn.relu(x), self.dropout_rate, train=train, **drop)
    x = nn.relu(layers.conv(self.channels, 1, name="fc7", **kw)(x))
    drop = (self.dropout_rate, self.channel_dropout)
    # FCN's scores start at zero.
    init = (
        nn.initializers.zeros if self.form != "dilated" else kw["kernel_init"]
    )
    scores = layers.Classifier(
        self.num_classes, *drop, kernel_init=init, name="classifier"
    )(x, train=train)
    if self.form == "dilated":
      return {"logits": scores}
    size = features["image"].shape[1:3]
    if self.form == "32s":
      kw = dict(offset=OFFSET_32S, size=size)
      return {"logits": resizing.upsample_transposed(scores, 32, **kw)}
    for stage, pool, scale, offset in (
        ("stage3", "pool4", 0.01, OFFSET_POOL4),
        ("stage2", "pool3", 0.0001, OFFSET_POOL3),
    ):
      scores = resizing.upsample_transposed(scores, 2)
      x = features[stage].astype(jnp.float32)
      x *= scale if self.at_once else 1.0
      kw = dict(kernel_init=nn.initializers.zeros, dtype=jnp.float32)
      x = layers.conv(self.num_classes, 1, name=f"score_{pool}", **kw)(x)
      h, w = scores.shape[1:3]
      scores += x[:, offset : offset + h, offset : offset + w]
    kw = dict(offset=OFFSET_8S, size=size)
    return {"logits": resizing.upsample_transposed(scores, 8, **kw)}
