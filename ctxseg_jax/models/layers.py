"""Layers that more than one backbone or head uses."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
from typing import Any
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import coarse
from ctxseg_jax.models import convolution
from ctxseg_jax.models import products
from ctxseg_jax.models.batch_norm import BatchNorm

# What backbones and heads return, by name.
Arrays = dict[str, jax.Array]

# The outputs of a backbone that a head may read.
Stage = Literal["stem", "stage1", "stage2", "stage3", "stage4"]

# Fan-out He: N(0, sqrt(2 / (k * k * C_out))), as the published ResNets.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class CheckedModule(nn.Module):
  """A module whose fields are checked against their annotations.

  Raises:
    ValueError: A field's value is none of its `Literal`, or out of its bounds.
  """

  def __post_init__(self):
    bounds.check_fields(self)
    super().__post_init__()


@dataclasses.dataclass(frozen=True)
class Norm:
  """Settings that all batch norms of a network share.

  Attributes:
    axis_name: Mesh axis over which the statistics are averaged; None outside
      `shard_map`.
    momentum: Share of the old running statistics that a step keeps: 1 minus
      PyTorch's (0.9 is its default 0.1; EMANet's 3e-4 is 0.9997).
    epsilon: Added to the variance.
    frozen: Normalise by the running statistics in training too, and leave them
      unchanged (DeepLabV2). Scale and bias are still trained.
  """

  axis_name: str | None = None
  momentum: bounds.Fraction = 0.9
  epsilon: bounds.PositiveFloat = 1e-5
  frozen: bool = False

  def __post_init__(self):
    bounds.check_fields(self)


def batch_norm(*, train: bool, norm: Norm, **kwargs: Any) -> nn.BatchNorm:
  """Returns the batch norm of the package.

  Mean and mean of squares travel together, so that each layer synchronises
  once per pass (EncNet's "sync once"). The running variance is the biased one;
  PyTorch stores n / (n - 1) times it. Statistics and parameters are float32,
  whatever the `dtype` of the output.
  """
  running = norm.frozen or not train
  # Exporters know Flax's.
  module = nn.BatchNorm if running else BatchNorm
  return module(
      use_running_average=running,
      momentum=norm.momentum,
      epsilon=norm.epsilon,
      axis_name=norm.axis_name,
      **kwargs,
  )


def conv(
    channels: int,
    size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | Literal["SAME"] | None = None,
    kernel_init: nn.initializers.Initializer = conv_init,
    conv_general_dilated: Callable[..., jax.Array] = convolution.by_groups,
    **kwargs: Any,
) -> nn.Conv:
  """Returns a convolution with a square, odd kernel.

  Padding is symmetric, as in PyTorch; None is `dilation * (size - 1) / 2`,
  which keeps the size of the map at stride 1. TensorFlow's "SAME" pads (0, 1)
  at stride 2.
  """
  if padding is None:
    padding = dilation * (size - 1) // 2
  if padding != "SAME":
    padding = ((padding, padding), (padding, padding))
  return nn.Conv(
      channels,
      (size, size),
      strides=(stride, stride),
      kernel_dilation=(dilation, dilation),
      padding=padding,
      kernel_init=kernel_init,
      conv_general_dilated=conv_general_dilated,
      **kwargs,
  )


def dense(channels: int, *, name: str) -> nn.Dense:
  """Returns a layer on vectors per image, in full float32: hardly any work."""
  return nn.Dense(channels, precision=products.FULL, name=name)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
  """Returns `nn.relu` of x, whose gradient keeps what it returns.

  That is kept anyway where a convolution follows; Flax's keeps where x was
  positive.
  """
  return nn.relu(x)


def _relu_forward(x):
  y = nn.relu(x)
  return y, y


def _relu_backward(y, dy):
  return (jnp.where(y > 0, dy, jnp.zeros_like(dy)),)


relu.defvjp(_relu_forward, _relu_backward)


# Activations that a batch norm in training does itself: their gradients keep
# less together.
_CLIPS = {nn.relu: math.inf, nn.relu6: 6.0}


class ConvBNAct(CheckedModule):
  """Convolution without bias, batch norm, activation.

  The kernel is square and odd. `groups` of channels are convolved apart; as
  many as there are input channels is a depthwise convolution. Padding is
  symmetric or, if it is uneven, TensorFlow's. Of several maps, which are
  concatenated, some may be coarser; see `coarse`.
  """

  channels: bounds.PositiveInt
  kernel_size: bounds.PositiveInt = 3
  stride: bounds.PositiveInt = 1
  dilation: bounds.PositiveInt = 1
  groups: bounds.PositiveInt = 1
  uneven_padding: bool = False
  act: Callable[[jax.Array], jax.Array] | None = nn.relu
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self, x: jax.Array | Sequence[coarse.Part], *, train: bool
  ) -> jax.Array:
    # An output feeds as many units as its group has: without the factor a
    # depthwise kernel starts so small that a batch norm's epsilon shows.
    init = nn.initializers.variance_scaling(
        2 * self.groups, "fan_out", "normal"
    )
    kw = dict(kernel_init=init, dtype=self.dtype, name="conv")
    if isinstance(x, Sequence):
      x = coarse.JoinedConv(self.channels, self.kernel_size, **kw)(
          x, train=train
      )
    else:
      x = conv(
          self.channels,
          self.kernel_size,
          stride=self.stride,
          dilation=self.dilation,
          padding="SAME" if self.uneven_padding else None,
          feature_group_count=self.groups,
          conv_general_dilated=convolution.choose(train=train),
          use_bias=False,
          **kw,
      )(x)
    joined = self.act in _CLIPS and train and not self.norm.frozen
    kw = dict(clip=_CLIPS[self.act]) if joined else {}
    kw |= dict(norm=self.norm, dtype=self.dtype, name="bn")
    x = batch_norm(train=train, **kw)(x)
    return x if self.act is None or joined else self.act(x)


def convolve(
    module: nn.Module,
    x: jax.Array | Sequence[coarse.Part],
    channels: int,
    kernel_size: int = 3,
    *,
    train: bool,
    **options: Any,
) -> jax.Array:
  """Applies a `ConvBNAct` that belongs to a module and has its norm and dtype.

  `options` are the layer's name and its other fields, see there.
  """
  options = dict(norm=module.norm, dtype=module.dtype) | options
  return ConvBNAct(channels, kernel_size, **options)(x, train=train)


class SeparableConvBNAct(nn.Module):
  """A 3x3 convolution of each channel, then a 1x1 convolution over channels.

  Batch norm and ReLU follow both, as in mmsegmentation. Only the first is
  dilated.
  """

  channels: int
  dilation: int = 1
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, channels]."""
    c = x.shape[-1]
    kw = dict(dilation=self.dilation, groups=c, name="depthwise")
    x = convolve(self, x, c, train=train, **kw)
    return convolve(self, x, self.channels, 1, name="pointwise", train=train)


def squeeze_excite(
    x: jax.Array,
    squeeze_channels: int,
    act: Callable[[jax.Array], jax.Array] = nn.relu,
) -> jax.Array:
  """Returns factors for channels, computed from the means of an image.

  Two dense layers, `squeeze` and `excite`, that belong to the calling module,
  map [B, H, W, C] to [B, 1, 1, C], from 0 to 1, in the dtype of x; in between
  `act` is applied to `squeeze_channels`. Computed in float32.

  Reference: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
  """
  gate = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
  gate = act(dense(squeeze_channels, name="squeeze")(gate))
  gate = nn.sigmoid(dense(x.shape[-1], name="excite")(gate))
  return gate.astype(x.dtype)[:, None, None]


def expose(module: nn.Module, **arrays: jax.Array) -> None:
  """Lets what a module computes be looked at: see `evaluation.explanation`.

  Sows arrays [B, ...] under their names in the collection `"intermediates"`.
  Where it is not mutable, as in training and prediction, this does nothing.
  """
  for name, array in arrays.items():
    module.sow("intermediates", name, array)


def dropout(
    x: jax.Array, rate: float, *, channel_dropout: bool, train: bool, name: str
) -> jax.Array:
  """Drops elements or, of each image, whole channels of [B, H, W, C]."""
  return nn.Dropout(
      rate,
      broadcast_dims=(1, 2) if channel_dropout else (),
      deterministic=not train,
      name=name,
  )(x)


class Classifier(CheckedModule):
  """Dropout and a 1x1 convolution to float32 logits.

  Attributes:
    dropout_rate: Share of channels (or elements) dropped when training.
    channel_dropout: Drop whole channels (PyTorch's Dropout2d, as mmsegmentation
      and the first PyTorch-Encoding), or single elements (PyTorch-Encoding
      since 2020).
    kernel_init: Initialiser of the kernel. Its default is 1 / sqrt(C) and not
      mmsegmentation's 0.01: a gate gets its gradient through it, and EncNet's
      did not learn on context scenes.
  """

  num_classes: bounds.PositiveInt
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, num_classes]."""
    drop = dict(channel_dropout=self.channel_dropout, name="dropout")
    x = dropout(x, self.dropout_rate, train=train, **drop)
    # float32 whatever the compute dtype: bfloat16 logits cost accuracy.
    kw = dict(kernel_init=self.kernel_init, dtype=jnp.float32, name="conv")
    kw["conv_general_dilated"] = convolution.choose(train=train)
    return conv(self.num_classes, 1, **kw)(x)


def classify(
    head: nn.Module, x: jax.Array, *, train: bool, name: str = "classifier"
) -> jax.Array:
  """Maps [B, H, W, C] to logits by a head's classifier, with its dropout."""
  return Classifier(
      head.num_classes, head.dropout_rate, head.channel_dropout, name=name
  )(x, train=train)


def normalize_images(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """Maps RGB images [B, H, W, 3], 0 to 255, to float32 (images - mean) / std.

  Mean and standard deviation are by channel, in the unit of the images.
  """
  mean = jnp.asarray(mean, jnp.float32)
  std = jnp.asarray(std, jnp.float32)
  return (images.astype(jnp.float32) - mean) / std
