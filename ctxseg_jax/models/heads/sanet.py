"""Squeeze-and-Attention head (SANet).

Reference: Zhong et al., "Squeeze-and-Attention Networks for Semantic
Segmentation", CVPR 2020, https://arxiv.org/abs/1909.03402. There is no code by
the authors. What the paper leaves open is chosen here: the kernels of the two
convolutions of a path (1x1, 3x3) and their groups, the fusion of the four
modules (a 1x1 convolution at the size of stage 1), and the category scores
(the mean of the masks). The parameters come out at 56.63 M with ResNet-101,
the paper has 55.5 M.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing

Pooling = Literal["average", "max"]

STAGES = ("stage1", "stage2", "stage3", "stage4")


class SqueezeAttention(nn.Module):
  """Weights features by a second path over a coarse grid of the same input.

  The attention comes out of a ReLU, not a sigmoid: it is not bounded, and it
  is added as well as multiplied. The fields are `SANetHead`'s.
  """

  channels: int
  groups: int = 2
  pool_size: int = 8
  pooling: Pooling = "average"
  align_corners: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to [B, h, w, channels]."""
    for width in (x.shape[-1], self.channels):
      if width % self.groups:
        raise ValueError(
            f"groups={self.groups} does not divide a width of {width}; set"
            " channels to a multiple of it, or groups to 1"
        )

    def path(x, name):
      kw = dict(groups=self.groups, train=train)
      x = layers.convolve(self, x, self.channels, 1, name=f"{name}1", **kw)
      return layers.convolve(self, x, self.channels, 3, name=f"{name}2", **kw)

    main = path(x, "main")
    # Paper: Eq. (5); the ReLU of its second convolution is the paper's sigma.
    cells = resizing.pool_cells(x, self.pool_size, self.pooling)
    attention = resizing.resize_bilinear(
        path(cells, "attention"), x.shape[1:3], align_corners=self.align_corners
    ).astype(self.dtype)
    # Paper: Eq. (4).
    output = attention * main + attention
    layers.expose(self, main=main, attention=attention, output=output)
    return output


class SANetHead(layers.CheckedModule):
  """Squeeze-and-attention modules on all stages, and a dense branch.

  The paper supervises three outputs: the loss is the cross-entropy of the
  masks, which fuse the four modules, plus 0.2 of the binary cross-entropy of
  the categories, plus 0.8 of the cross-entropy of the dense branch. It defines
  its prediction twice: in section 3.3 as the sum of the dense branch and the
  module on stage 4 (itself not supervised, and only the module sees context),
  in its abstract as the masks. XLA drops what the prediction does not need.

  Attributes:
    channels: Width of the paths of each module, and of the dense branch; None
      is a quarter of its stage's (paper).
    groups: Groups of both convolutions of each path (paper: 2, for the first
      convolution).
    pool_size: Side of the cells of the coarse grid (paper: 8).
    pooling: "average" (the paper's equations and figures) or "max" (its text).
    prediction: "dense" (section 3.3) or "masks" (abstract).
    category_loss: Whether to output `"category_logits"`.
    dense_loss: Whether there is a dense branch. Without it the masks are the
      prediction.
    dropout_rate: Dropout before the classifier of the dense branch.
    channel_dropout: Drop channels instead of elements.
    align_corners: Convention of all resizing of the network.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt | None = None
  groups: bounds.PositiveInt = 2
  pool_size: bounds.PositiveInt = 8
  pooling: Pooling = "average"
  prediction: Literal["dense", "masks"] = "dense"
  category_loss: bool = True
  dense_loss: bool = True
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  align_corners: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps all four stages to scores.

    Returns:
      The masks, at the size of stage 1: as `"logits"` where they are the
      prediction, else as `"mask_logits"` beside `"logits"` at that of stage 4,
      which are not to be supervised. With `dense_loss` `"dense_logits"`, of
      stage 4, with `category_loss` `"category_logits"`, [B, num_classes].
    """
    kw = dict(norm=self.norm, dtype=self.dtype)

    def width(stage):
      return self.channels or features[stage].shape[-1] // 4

    def attend(stage):
      grid = (self.groups, self.pool_size, self.pooling, self.align_corners)
      x = SqueezeAttention(
          width(stage), *grid, name=f"{stage}_attention", **kw
      )(features[stage], train=train)
      return classify(x, f"{stage}_classifier")

    def classify(x, name):
      kw = dict(dropout_rate=0.0, name=name)
      return layers.Classifier(self.num_classes, **kw)(x, train=train)

    size = features["stage1"].shape[1:3]
    outputs = {stage: attend(stage) for stage in STAGES}
    maps = [
        resizing.resize_bilinear(x, size, align_corners=self.align_corners)
        for x in outputs.values()
    ]
    masks = classify(jnp.concatenate(maps, axis=-1), "fusion")
    out = {"logits": masks}
    if self.category_loss:
      out["category_logits"] = jnp.mean(masks, axis=(1, 2))
    if self.dense_loss:
      x = features["stage4"]
      x = layers.convolve(self, x, width("stage4"), name="dense", train=train)
      dense = layers.classify(self, x, train=train, name="dense_classifier")
      out["dense_logits"] = dense
      if self.prediction == "dense":
        out |= {"logits": dense + outputs["stage4"], "mask_logits": masks}
    return out
