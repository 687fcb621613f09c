"""The heads of fully convolutional VGG16: FCN-32s, FCN-8s and a dilated one.

Reference: Long et al., "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, https://arxiv.org/abs/1411.4038, with the offsets of
the authors' networks as in wkentaro/pytorch-fcn. The dilated form is the host
of Wang et al., "Neuron-level Selective Context Aggregation for Scene
Segmentation", 2017, https://arxiv.org/abs/1711.08278.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import settings
from ctxseg_jax.models.layers import Classifier

FORMS = ("32s", "8s", "dilated")

# Where the padding of 100 has moved the image to, at the scores' scale of each
# crop (the authors' networks).
OFFSET_32S = 19
OFFSET_POOL4 = 5
OFFSET_POOL3 = 9
OFFSET_8S = 31


def transposed_matrix(source: int, stride: int) -> np.ndarray:
  """Returns the matrix of bilinear transposed convolution along one axis.

  The kernel has 2 * stride taps and no padding, as the layers that FCN
  initialises to bilinear upsampling. Unlike `layers.resize_matrix` it fades
  out beyond the first and the last sample.

  Args:
    source: Input length.
    stride: Stride of the transposed convolution: the factor of upsampling.

  Returns:
    float32 [(source + 1) * stride, source].
  """
  taps = np.arange(2 * stride)
  kernel = 1 - np.abs(taps - (stride - 0.5)) / stride
  matrix = np.zeros(((source + 1) * stride, source), np.float32)
  for i in range(source):
    matrix[i * stride + taps, i] = kernel
  return matrix


def upsample(
    x: jax.Array, stride: int, *, offset: int = 0, size: Sequence[int] = ()
) -> jax.Array:
  """Upsamples by a transposed convolution with fixed bilinear weights.

  Args:
    x: Scores, float32 [B, h, w, C].
    stride: Factor.
    offset: First row and column to keep.
    size: (H, W) to keep from there; all if empty.

  Returns:
    float32 [B, H, W, C].
  """
  rows = transposed_matrix(x.shape[1], stride)
  cols = transposed_matrix(x.shape[2], stride)
  if size:
    rows = rows[offset : offset + size[0]]
    cols = cols[offset : offset + size[1]]
  # Full float32 passes: TPUs would multiply in bfloat16 by default.
  kw = dict(precision=jax.lax.Precision.HIGHEST)
  x = jnp.einsum("Hh,bhwc->bHwc", rows, x, **kw)
  return jnp.einsum("Ww,bHwc->bHWc", cols, x, **kw)


def crop(x: jax.Array, offset: int, size: Sequence[int]) -> jax.Array:
  """Cuts (H, W) out of [B, h, w, C], from `offset` on along both axes."""
  return x[:, offset : offset + size[0], offset : offset + size[1]]


class FCNVGGHead(nn.Module):
  """The fully connected layers of VGG16 as convolutions, and a classifier.

  The forms "32s" and "8s" read the backbone `vgg16` with `form="fcn"` and
  return logits at the image size. Their transposed convolutions are bilinear,
  have no parameters and are not trained, as in pytorch-fcn; the paper fixes
  the last one and trains the two smaller ones of FCN-8s from there.

  Attributes:
    num_classes: Number of classes.
    form: "32s"; "8s", which adds the scores of pool4 and pool3; or "dilated",
      whose 7x7 convolution is padded so that positions stay where they are.
    channels: Width of the two layers before the classifier (paper: 4096).
    at_once: Scale pool4 by 0.01 and pool3 by 0.0001, so that FCN-8s can be
      trained in a single run. False is what the authors train in three, each
      starting from the one before.
    dropout_rate: Dropout after both layers.
    channel_dropout: Drop channels instead of elements.
    dtype: Compute dtype; scores and logits are float32.
  """

  num_classes: int
  form: str = "dilated"
  channels: int = 4096
  at_once: bool = True
  dropout_rate: float = 0.5
  channel_dropout: bool = True
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    settings.check_choice("form", self.form, FORMS)
    super().__post_init__()

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; `"stage4"` [B, h, w, C4] is read, by "32s"
        and "8s" also `"image"`, and by "8s" `"stage3"` and `"stage2"`.
      train: Whether dropout drops.

    Returns:
      `"logits"`: [B, h, w, num_classes], or at the image size.

    Raises:
      UserError: Features that it cannot read.
    """
    if self.form != "dilated" and "image" not in features:
      raise errors.UserError(
          f"config: model.head: form={self.form!r} needs the padding that"
          " its crops take away;"
          " set the backbone to 'vgg16' with form='fcn', or form='dilated'."
      )
    padding = 3 if self.form == "dilated" else 0
    x = features["stage4"].astype(self.dtype)
    x = nn.relu(self._conv(x, 7, padding, "fc6"))
    x = nn.Dropout(
        self.dropout_rate,
        broadcast_dims=(1, 2) if self.channel_dropout else (),
        deterministic=not train,
        name="dropout6",
    )(x)
    x = nn.relu(self._conv(x, 1, 0, "fc7"))
    # FCN's scores start at zero.
    kernel_init = nn.initializers.zeros
    if self.form == "dilated":
      kernel_init = nn.initializers.normal(0.01)
    scores = Classifier(
        self.num_classes,
        self.dropout_rate,
        self.channel_dropout,
        kernel_init,
        name="classifier",
    )(x, train=train)
    if self.form == "dilated":
      return {"logits": scores}
    size = features["image"].shape[1:3]
    if self.form == "32s":
      logits = upsample(scores, 32, offset=OFFSET_32S, size=size)
      return {"logits": logits}
    scores = upsample(scores, 2)
    scores += crop(
        self._score(features["stage3"], 0.01, "score_pool4"),
        OFFSET_POOL4,
        scores.shape[1:3],
    )
    scores = upsample(scores, 2)
    scores += crop(
        self._score(features["stage2"], 0.0001, "score_pool3"),
        OFFSET_POOL3,
        scores.shape[1:3],
    )
    return {"logits": upsample(scores, 8, offset=OFFSET_8S, size=size)}

  def _conv(self, x, side, padding, name):
    return nn.Conv(
        self.channels,
        (side, side),
        padding=((padding, padding), (padding, padding)),
        kernel_init=nn.initializers.normal(0.01),
        dtype=self.dtype,
        name=name,
    )(x)

  def _score(self, x, scale, name):
    x = x.astype(jnp.float32)
    return nn.Conv(
        self.num_classes,
        (1, 1),
        padding="VALID",
        kernel_init=nn.initializers.zeros,
        dtype=jnp.float32,
        name=name,
    )(scale * x if self.at_once else x)
