"""Residual networks of 14 layers for 32x32 images (CIFAR-10).

Reference: Zhang et al., "Context Encoding for Semantic Segmentation", CVPR
2018, https://arxiv.org/abs/1803.08904. Layers as in the authors' code
(zhanghang1989/PyTorch-Encoding, experiments/recognition until 2020), which the
published parameter counts belong to. It has no SE-ResNet: ours is the EncNet
with another gate, reduction 16, which gives the published 2.8 M.
"""

from collections.abc import Callable
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models.encoding import encode
from ctxseg_jax.models.encoding import uniform

BLOCKS_PER_GROUP = 2
STRIDES = (1, 2, 2)


class CifarResNet(layers.CheckedModule):
  """A 3x3 convolution and three groups of two residual blocks.

  Attributes:
    block: "preactivation" (the baseline), "squeeze_excitation", "encoding" or
      "encoding_drop" (see `EncodingGate.random_scale`).
    widen: Width of the first group over 16 (paper: 4 is its "64d", 8 "128d").
    num_codewords: Codewords K of each encoding layer (paper: 16 "16k", 32).
  """

  block: Literal[
      "encoding", "encoding_drop", "preactivation", "squeeze_excitation"
  ] = "preactivation"
  widen: bounds.PositiveInt = 4
  num_codewords: bounds.PositiveInt = 16
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> layers.Arrays:
    """Maps images [B, H, W, 3] to `stem` and `stage1` ... `stage3`.

    They have strides 1, 1, 2 and 4; the stages 16, 32 and 64 times `widen`
    channels. `stage3` has gone through the final batch norm and ReLU.
    """
    kw = dict(norm=self.norm, dtype=self.dtype)
    width = 16 * self.widen
    make_block = self._block_type()
    x = images.astype(self.dtype)
    x = layers.conv(width, dtype=self.dtype, name="stem_conv")(x)
    x = nn.relu(layers.batch_norm(train=train, name="stem_bn", **kw)(x))
    features = {"stem": x}
    for group, stride in enumerate(STRIDES, start=1):
      for i in range(1, BLOCKS_PER_GROUP + 1):
        x = make_block(
            channels=width * 2 ** (group - 1),
            stride=stride if i == 1 else 1,
            name=f"stage{group}_block{i}",
            **kw,
        )(x, train=train)
      features[f"stage{group}"] = x
    # The tail of the pre-activation network; the code keeps it for the others.
    x = layers.batch_norm(train=train, name="final_bn", **kw)(x)
    features["stage3"] = nn.relu(x)
    return features

  def _block_type(self) -> Callable[..., nn.Module]:
    if self.block == "preactivation":
      return PreactivationBlock
    if self.block == "squeeze_excitation":
      return functools.partial(GatedBlock, gate=SqueezeExcitation)
    random_scale = self.block == "encoding_drop"
    gate = functools.partial(EncodingGate, self.num_codewords, random_scale)
    return functools.partial(GatedBlock, gate=gate)


class PreactivationBlock(nn.Module):
  """Batch norm, ReLU and convolution, twice (He et al., ECCV 2016)."""

  channels: int
  stride: int
  norm: layers.Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    norm = dict(train=train, norm=self.norm, dtype=self.dtype)
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    out = nn.relu(layers.batch_norm(name="bn1", **norm)(x))
    out = conv(self.channels, stride=self.stride, name="conv1")(out)
    out = nn.relu(layers.batch_norm(name="bn2", **norm)(out))
    out = conv(self.channels, name="conv2")(out)
    return out + _shortcut(x, self.channels, self.stride, self.dtype)


class GatedBlock(nn.Module):
  """Convolution, batch norm, ReLU, convolution, batch norm, a gate.

  The stride is that of the first convolution; `gate` makes a module that
  scales the channels of its input.
  """

  channels: int
  stride: int
  gate: Callable[..., nn.Module]
  norm: layers.Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    kw = dict(norm=self.norm, dtype=self.dtype)
    conv = functools.partial(layers.convolve, self, train=train)
    out = conv(x, self.channels, stride=self.stride, name="conv1")
    out = conv(out, self.channels, act=None, name="conv2")
    out = self.gate(name="gate", **kw)(out, train=train)
    return nn.relu(out + _shortcut(x, self.channels, self.stride, self.dtype))


class SqueezeExcitation(nn.Module):
  """Scales channels by factors from their means; the reduction is 16."""

  norm: layers.Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    del train
    return x * layers.squeeze_excite(x, x.shape[-1] // 16)


class EncodingGate(nn.Module):
  """Scales channels by a linear function of their encoding.

  The residuals to the codewords are concatenated and normalised, where the
  segmentation head sums them over the codewords.

  Attributes:
    random_scale: Draw the smoothing factors anew in every training pass and
      take their mean, -0.5, otherwise, instead of learning them: the
      `encnetdrop` of the code, which its 32k128d model is.
  """

  num_codewords: int
  random_scale: bool
  norm: layers.Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    b, h, w, channels = x.shape
    reduced = channels // 4
    y = layers.conv(reduced, 1, dtype=self.dtype, name="reduce_conv")(x)
    kw = dict(norm=self.norm, dtype=self.dtype)
    y = layers.batch_norm(train=train, name="reduce_bn", **kw)(y)
    y = nn.relu(y).reshape(b, h * w, reduced)
    shape = (self.num_codewords, reduced)
    bound = (shape[0] * shape[1]) ** -0.5
    codewords = self.param("codewords", uniform(-bound, bound), shape)
    encoding, _ = encode(y, codewords, self._scale(train))
    encoding = encoding.reshape(b, -1)
    gate = layers.dense(channels, name="excite")(l2_normalize(encoding))
    return x * nn.sigmoid(gate).astype(self.dtype)[:, None, None]

  def _scale(self, train: bool) -> jax.Array:
    shape = (self.num_codewords,)
    draw = uniform(-1.0, 0.0)
    if not self.random_scale:
      return self.param("scale", draw, shape)
    if train:
      return draw(self.make_rng("dropout"), shape)
    return jnp.full(shape, -0.5)


def l2_normalize(x: jax.Array, eps: float = 1e-8) -> jax.Array:
  """Divides vectors [..., C] by their length, or by `eps` if it is less."""
  squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  # A root of 0 has no gradient.
  return x * jax.lax.rsqrt(jnp.maximum(squares, eps**2))


def _shortcut(x, channels, stride, dtype):
  """Returns x, projected (without batch norm) where its shape changes."""
  if stride == 1 and x.shape[-1] == channels:
    return x
  kw = dict(stride=stride, dtype=dtype, name="shortcut")
  return layers.conv(channels, 1, **kw)(x)
