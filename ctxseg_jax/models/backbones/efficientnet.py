"""EfficientNet and EfficientNet-Lite with dilated last stages.

References: Tan and Le, "EfficientNet: Rethinking Model Scaling for
Convolutional Neural Networks", ICML 2019, https://arxiv.org/abs/1905.11946;
for Lite the authors' code, tensorflow/tpu: no squeeze-excitation, ReLU6, and a
stem, first and last group that are not scaled. As in timm, a block whose stride
is replaced by dilation keeps the dilation before it.
"""

import dataclasses
import math
from typing import Literal
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models.remat import Remat
from ctxseg_jax.models.remat import run_block

Variant = Literal[
    "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "lite0", "lite1", "lite2"
]

# Coefficients of width and depth.
VARIANTS = {
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
}

STEM_CHANNELS = 32


class Group(NamedTuple):
  """Blocks of one width; B0's values (paper: a row of Table 1)."""

  expansion: int
  channels: int
  num_blocks: int
  stride: int
  kernel_size: int


GROUPS = (
    Group(1, 16, 1, 1, 3),
    Group(6, 24, 2, 2, 3),
    Group(6, 40, 2, 2, 5),
    Group(6, 80, 3, 2, 3),
    Group(6, 112, 3, 1, 5),
    Group(6, 192, 4, 2, 5),
    Group(6, 320, 1, 1, 3),
)

# The last group at each of the strides 4, 8, 16 and 32.
STAGE_ENDS = {2: "stage1", 3: "stage2", 5: "stage3", 7: "stage4"}


def is_lite(variant: Variant) -> bool:
  """Returns whether a variant is one of EfficientNet-Lite."""
  return variant.startswith("lite")


def round_channels(channels: int, width: float) -> int:
  """Scales a width to a multiple of 8 that is at least 0.9 times as large."""
  scaled = channels * width
  rounded = max(8, int(scaled + 4) // 8 * 8)
  return rounded if rounded >= 0.9 * scaled else rounded + 8


def group_plan(
    variant: Variant, output_stride: Literal[8, 16, 32]
) -> list[list[tuple[Group, int, int]]]:
  """Returns the scaled groups, each with stride and dilation by block.

  One list per group: of every block the group, the stride and the dilation.
  """
  width, depth = VARIANTS[variant]
  plan = []
  stride, dilation = 2, 1  # After the stem.
  for group in GROUPS:
    scaled = math.ceil(group.num_blocks * depth)
    if is_lite(variant) and group in (GROUPS[0], GROUPS[-1]):
      scaled = group.num_blocks
    group = group._replace(
        channels=round_channels(group.channels, width), num_blocks=scaled
    )
    first = (group, group.stride, dilation)
    if stride * group.stride > output_stride:
      first = (group, 1, dilation)
      dilation *= group.stride
    else:
      stride *= group.stride
    plan.append([first] + [(group, 1, dilation)] * (group.num_blocks - 1))
  return plan


class SqueezeExcitation(nn.Module):
  """Scales channels by `squeeze_excite`, with `channels` in between."""

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C]; means and gate are float32."""
    return x * layers.squeeze_excite(x, self.channels, nn.silu)


class MBConv(nn.Module):
  """Expands, convolves depthwise, gates and projects; adds the input.

  Kernel size, stride, dilation and padding are of the depthwise convolution,
  which is `expansion` times as wide as the input.

  Attributes:
    drop_rate: Share of the images for which training skips the block.
    lite: Whether it is a block of EfficientNet-Lite.
  """

  channels: int
  kernel_size: int
  expansion: int = 6
  stride: int = 1
  dilation: int = 1
  drop_rate: float = 0.0
  lite: bool = False
  uneven_padding: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H / stride, W / stride, channels]."""
    inputs = x
    width = self.expansion * x.shape[-1]
    act = nn.relu6 if self.lite else nn.silu
    if self.expansion > 1:
      x = layers.convolve(
          self, x, width, 1, act=act, name="expand", train=train
      )
    x = layers.convolve(
        self,
        x,
        width,
        self.kernel_size,
        stride=self.stride,
        dilation=self.dilation,
        groups=width,
        uneven_padding=self.uneven_padding,
        act=act,
        name="depthwise",
        train=train,
    )
    if not self.lite:
      # A quarter of the input of the block, not of the expanded width.
      x = SqueezeExcitation(max(1, inputs.shape[-1] // 4), name="se")(x)
    x = layers.convolve(
        self, x, self.channels, 1, act=None, name="project", train=train
    )
    if x.shape != inputs.shape:
      return x
    kw = dict(broadcast_dims=(1, 2, 3), deterministic=not train, name="drop")
    return nn.Dropout(self.drop_rate, **kw)(x) + inputs


class EfficientNet(layers.CheckedModule):
  """EfficientNet without its last 1x1 convolution and its classifier.

  Attributes:
    variant: "b0" to "b7" by width and depth (paper: section 4); "lite0" to
      "lite2" of EfficientNet-Lite.
    output_stride: Input size over the size of stage 4: 8, 16 or 32.
    drop_rate: Share of the images for which training skips the last block;
      it rises linearly from 0 at the first (paper: 0.2, "stochastic depth").
    epsilon: Added to the variance in the batch norms; must be that of the
      published weights, some of whose variances are small: 1e-3 (the authors;
      torchvision's B5 to B7), 1e-5 (timm's own, torchvision's B0 to B4).
    uneven_padding: Pad as TensorFlow does, at stride 2 one row and column less
      before an image of even size than after it. Must be that of the published
      weights: True for the authors' (EfficientNet-Lite, timm's names with
      `tf_`), False for torchvision's and timm's own.
    remat: What training keeps of a block for the backward pass: all ("none"),
      what the convolutions return ("conv"), nothing inside ("block").
    norm: Settings of the batch norms, except epsilon and the momentum, which
      is 0.99 as published.
  """

  variant: Variant = "b0"
  output_stride: Literal[8, 16, 32] = 8
  drop_rate: bounds.DropoutRate = 0.2
  epsilon: bounds.PositiveFloat = 1e-3
  uneven_padding: bool = False
  remat: Remat = "none"
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> layers.Arrays:
    """Maps images [B, H, W, 3] to `stem` and `stage1` ... `stage4`.

    They have strides 2, 4, 8 and then 8, 16 or 32 by `output_stride`; stages
    have 24, 40, 112, 320 channels in "b0", 48, 80, 224, 640 in "b7".
    """
    plan = group_plan(self.variant, self.output_stride)
    own = dict(momentum=0.99, epsilon=self.epsilon)
    kw = dict(norm=dataclasses.replace(self.norm, **own), dtype=self.dtype)
    lite = is_lite(self.variant)
    kw |= dict(uneven_padding=self.uneven_padding)
    width = 1.0 if lite else VARIANTS[self.variant][0]
    stem = layers.ConvBNAct(
        round_channels(STEM_CHANNELS, width),
        stride=2,
        act=nn.relu6 if lite else nn.silu,
        name="stem",
        **kw,
    )
    how = dict(train=train, remat=self.remat)
    x = run_block(stem, images.astype(self.dtype), **how)
    features = {"stem": x}
    total = sum(len(blocks) for blocks in plan)
    done = 0
    for i, blocks in enumerate(plan, start=1):
      for k, (group, stride, dilation) in enumerate(blocks, start=1):
        block = MBConv(
            group.channels,
            group.kernel_size,
            group.expansion,
            stride,
            dilation,
            self.drop_rate * done / total,
            lite,
            name=f"group{i}_block{k}",
            **kw,
        )
        x = run_block(block, x, **how)
        done += 1
      if i in STAGE_ENDS:
        features[STAGE_ENDS[i]] = x
    return features
