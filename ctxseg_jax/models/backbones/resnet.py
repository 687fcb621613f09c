"""Residual networks with dilated last stages.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016;
stems and dilation as in the segmentation codes named at `ResNet`. The stride of
a bottleneck is on its 3x3 convolution (v1.5) unless a field says otherwise.
"""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models import layers
from ctxseg_jax.models import max_pooling
from ctxseg_jax.models.remat import Remat
from ctxseg_jax.models.remat import run_block

Depth = Literal[18, 34, 50, 101, 152]
Dilation = Literal[
    "contracted",
    "uniform",
    "multi_grid",
    "multi_grid_contracted",
    "multi_grid_stage4",
]

STAGE_SIZES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

# Widths of the convolutions before max pooling; a single one is 7x7.
STEMS = {
    "7x7": (64,),
    "deep64": (64, 64, 128),
    "deep32": (32, 32, 64),
}

MULTI_GRID = (1, 2, 4)

# For stage 3 and stage 4: whether the first block has half of the dilation of
# the stage, and whether the dilations of the blocks are multiplied by
# MULTI_GRID. A halved first block ignores its grid value.
DILATIONS = {
    "contracted": (("halved", None), ("halved", None)),
    "uniform": ((None, None), (None, None)),
    "multi_grid": ((None, None), (None, MULTI_GRID)),
    "multi_grid_contracted": (("halved", None), ("halved", MULTI_GRID)),
    "multi_grid_stage4": (("halved", None), (None, MULTI_GRID)),
}


def stage_plan(
    depth: Depth, output_stride: Literal[8, 16, 32], dilation: Dilation
) -> list[tuple[int, tuple[int, ...]]]:
  """Returns the stride and the blocks' dilations of each of the four stages.

  Raises:
    ValueError: The stages of this depth have not as many blocks as the grid.
  """
  sizes = STAGE_SIZES[depth]
  strides = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}
  bases = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}
  forms = ((None, None), (None, None), *DILATIONS[dilation])
  plan = []
  for blocks, stride, base, (first, grid) in zip(
      sizes, strides[output_stride], bases[output_stride], forms, strict=True
  ):
    rates = [base] * blocks
    if base > 1 and grid is not None:
      if blocks != len(grid):
        raise ValueError(
            f"dilation={dilation!r} needs {len(grid)} blocks in stage"
            f" {len(plan) + 1}, depth {depth} has {blocks}; use 'contracted'"
        )
      rates = [base * g for g in grid]
    if base > 1 and first == "halved":
      rates[0] = base // 2
    plan.append((stride, tuple(rates)))
  return plan


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut (depths 18 and 34).

  Only the first convolution is dilated, as in mmsegmentation.
  """

  channels: int
  stride: int
  dilation: int
  avg_down: bool
  norm: layers.Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    conv = functools.partial(layers.convolve, self, train=train)
    where = dict(stride=self.stride, dilation=self.dilation)
    out = conv(x, self.channels, name="conv1", **where)
    out = conv(out, self.channels, act=None, name="conv2")
    return _add_shortcut(x, out, self, train)


class Bottleneck(nn.Module):
  """1x1, 3x3 (dilated) and 1x1 convolutions and a shortcut.

  The stride is that of the 3x3, or of the first 1x1 convolution.
  """

  channels: int
  stride: int
  dilation: int
  avg_down: bool
  stride_in_1x1: bool
  norm: layers.Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    conv = functools.partial(layers.convolve, self, train=train)
    strides = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
    out = conv(x, self.channels, 1, stride=strides[0], name="conv1")
    where = dict(stride=strides[1], dilation=self.dilation)
    out = conv(out, self.channels, name="conv2", **where)
    out = conv(out, 4 * self.channels, 1, act=None, name="conv3")
    return _add_shortcut(x, out, self, train)


def _add_shortcut(x, out, block, train):
  """Returns the ReLU of out and the block's input x, of the same shape."""
  # Exporters know Flax's.
  relu = layers.relu if train else nn.relu
  return relu(out + _shortcut(x, out, block, train))


def _shortcut(x, out, block, train):
  """Returns x, projected where a block changes its shape."""
  if x.shape == out.shape:
    return x
  stride = block.stride
  if block.avg_down and stride > 1:
    # Means of squares, which are cut off at the edges.
    pads = [(0, -size % stride) for size in x.shape[1:3]]
    window = (stride, stride)
    x = nn.avg_pool(x, window, window, pads, count_include_pad=False)
    stride = 1
  kw = dict(stride=stride, act=None, name="shortcut", train=train)
  return layers.convolve(block, x, out.shape[-1], 1, **kw)


class ResNet(layers.CheckedModule):
  """ResNet without its classifier.

  Attributes:
    depth: Number of layers with parameters; bottlenecks from 50 on.
    output_stride: Input size over the size of stage 4: 8, 16 or 32.
    stem: Convolutions before max pooling: one of 7x7 (torchvision), or three
      3x3 ones of 64, 64 and 128 channels ("deep64": PyTorch-Encoding, semseg,
      EMANet) or 32, 32 and 64 ("deep32": mmsegmentation's ResNetV1c).
    dilation: How the blocks of stages 3 and 4 are dilated: "contracted"
      (PyTorch-Encoding, mmsegmentation), "uniform" (semseg), "multi_grid"
      (pytorch-deeplab-xception), "multi_grid_contracted" (EMANet) or
      "multi_grid_stage4" (DANet; mmsegmentation with multi_grid=(4, 8, 16));
      see `DILATIONS`.
    stride_in_1x1: Put the stride of a bottleneck into its first convolution,
      as in the first release of the weights (He et al.; DeepLabV2).
    avg_down: Average over the stride before the projection of a shortcut,
      which then has none (He et al., "Bag of Tricks for Image Classification
      with Convolutional Neural Networks", CVPR 2019: ResNet-D; ResNetV1d).
    ceil_pool: Round the size of the stem up; see `max_pooling.max_pool` (the
      first release, DeepLabV2).
    remat: What training keeps of a block for the backward pass: all ("none"),
      what the convolutions return ("conv"), nothing inside ("block").
  """

  depth: Depth = 50
  output_stride: Literal[8, 16, 32] = 8
  stem: Literal["7x7", "deep64", "deep32"] = "deep64"
  dilation: Dilation = "contracted"
  stride_in_1x1: bool = False
  avg_down: bool = False
  ceil_pool: bool = False
  remat: Remat = "none"
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    stage_plan(self.depth, self.output_stride, self.dilation)
    if self.stride_in_1x1 and self.depth < 50:
      raise ValueError(
          "stride_in_1x1 needs bottlenecks, a depth of 50 or more, got"
          f" {self.depth}"
      )

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> layers.Arrays:
    """Maps images [B, H, W, 3] to `stem` and `stage1` ... `stage4`.

    They have strides 4 (the stem after max pooling), 4, 8 and then 8, 16 or 32
    by `output_stride`; stages have 64, 128, 256, 512 channels, four times as
    many from depth 50 on.
    """
    plan = stage_plan(self.depth, self.output_stride, self.dilation)
    kw = dict(avg_down=self.avg_down, norm=self.norm, dtype=self.dtype)
    block_type = BasicBlock
    if self.depth >= 50:
      block_type = Bottleneck
      kw["stride_in_1x1"] = self.stride_in_1x1
    how = dict(train=train, remat=self.remat)
    x = images.astype(self.dtype)
    widths = STEMS[self.stem]
    for i, width in enumerate(widths, start=1):
      stem = layers.ConvBNAct(
          width,
          7 if len(widths) == 1 else 3,
          stride=2 if i == 1 else 1,
          norm=self.norm,
          dtype=self.dtype,
          name=f"stem_conv{i}",
      )
      x = run_block(stem, x, **how)
    x = max_pooling.max_pool(x, ceil_mode=self.ceil_pool)
    features = {"stem": x}
    for stage, (stride, dilations) in enumerate(plan, start=1):
      for i, dilation in enumerate(dilations, start=1):
        block = block_type(
            channels=64 * 2 ** (stage - 1),
            stride=stride if i == 1 else 1,
            dilation=dilation,
            name=f"stage{stage}_block{i}",
            **kw,
        )
        x = run_block(block, x, **how)
      features[f"stage{stage}"] = x
    return features
