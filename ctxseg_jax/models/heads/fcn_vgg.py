"""The heads of fully convolutional VGG16: FCN-32s, 16s, 8s and a dilated one.

Reference: Long et al., "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, https://arxiv.org/abs/1411.4038, as in the authors'
networks (shelhamer/fcn.berkeleyvision.org, wkentaro/pytorch-fcn). The dilated
form is the host of Wang et al., "Neuron-level Selective Context Aggregation for
Scene Segmentation", 2017, https://arxiv.org/abs/1711.08278.
"""

from typing import Literal
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing


class Skip(NamedTuple):
  """A pool whose scores are added to those of the layers behind it."""

  pool: str
  stage: str
  scale: float  # Of the pool, where all is trained at once.
  offset: int  # Of the crop, in pixels of the pool.


SKIPS = (
    Skip("pool4", "stage3", 0.01, 5),
    Skip("pool3", "stage2", 0.0001, 9),
)

# Of each form the stride of its scores, and the offset of the crop that undoes
# the padding of 100, in pixels of the image. Each stride has one skip more.
STRIDES = {"32s": (32, 19), "16s": (16, 27), "8s": (8, 31)}


class FCNVGGHead(layers.CheckedModule):
  """The fully connected layers of VGG16 as convolutions, and a classifier.

  The forms "32s", "16s" and "8s" read the backbone `vgg16` with `form="fcn"`
  and return logits at the image size. Their transposed convolutions are
  bilinear, have no parameters and are not trained, as in the authors' code; the
  paper trains those of stride 2 from there.

  Attributes:
    form: "32s"; "16s", which adds the scores of pool4; "8s", which adds those
      of pool3 too; or "dilated", whose 7x7 convolution is padded to keep the
      size of the map.
    channels: Width of the two layers before the classifier (paper: 4096).
    at_once: Scale pool4 by 0.01 and pool3 by 0.0001, to train FCN-8s in one
      run; without, the authors train 32s, 16s and 8s, each from the one before.
    dropout_rate: Dropout after both layers.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  form: Literal["32s", "16s", "8s", "dilated"] = "dilated"
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
    for skip in SKIPS[: list(STRIDES).index(self.form)]:
      scores = resizing.upsample_transposed(scores, 2)
      x = features[skip.stage].astype(jnp.float32)
      x *= skip.scale if self.at_once else 1.0
      kw = dict(kernel_init=nn.initializers.zeros, dtype=jnp.float32)
      x = layers.conv(self.num_classes, 1, name=f"score_{skip.pool}", **kw)(x)
      h, w = scores.shape[1:3]
      rows = slice(skip.offset, skip.offset + h)
      scores += x[:, rows, skip.offset : skip.offset + w]
    stride, offset = STRIDES[self.form]
    kw = dict(offset=offset, size=features["image"].shape[1:3])
    return {"logits": resizing.upsample_transposed(scores, stride, **kw)}
