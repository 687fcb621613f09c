"""Squeeze-and-Attention head (SANet).

Reference: Zhong et al., "Squeeze-and-Attention Networks for Semantic
Segmentation", CVPR 2020, https://arxiv.org/abs/1909.03402. There is no code by
the authors, and the text leaves open the kernels of a path's two convolutions,
how a module's output comes to have the classes, and how the four are fused
(here by a 1x1 convolution at the size of stage 1). With ResNet-101 and 21
classes, parameters and multiply-accumulates at 512x512 and 480x480 are

  kernel_sizes  groups  class_scores   parameters   512x512    480x480
  (1, 3)        (2, 1)  convolution       53.83 M   227.7 G    200.2 G
  (1, 1)        (2, 1)  classifier        54.19 M   228.4 G    200.8 G
  (1, 3)        (2, 2)  classifier        56.63 M   233.7 G    205.4 G
  (1, 3)        (2, 1)  classifier        59.76 M   240.4 G    211.3 G
  (3, 3)        (2, 1)  convolution       64.98 M   251.7 G    221.3 G
  (1, 1)        (1, 1)  classifier        55.58 M   231.4 G    203.4 G
  Table 6 of the paper                    55.5 M          204.7 G

None has the paper's figures. Table 6's other networks have theirs at 480x480,
not at the 512x512 of the text. Of the readings in which only the first
convolution is grouped, as the text says, the second comes nearest and the first
almost as near. The first is the default: it has the two convolutions of the
text and nothing behind them. The last, without groups, is nearest of all that
the options give.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing

Pooling = Literal["average", "max"]
# Odd, so that maps keep their size.
KernelSize = Literal[1, 3]

STAGES = ("stage1", "stage2", "stage3", "stage4")


class SqueezeAttention(nn.Module):
  """Weights features by a second path over a coarse grid of the same input.

  The attention comes out of a ReLU, not a sigmoid: it is not bounded, and it
  is added as well as multiplied. `widths` are those of the two convolutions of
  each path; the other fields are `SANetHead`'s.
  """

  widths: tuple[int, int]
  kernel_sizes: tuple[int, int] = (1, 3)
  groups: tuple[int, int] = (2, 1)
  main_relu: bool = False
  pool_size: int = 8
  pooling: Pooling = "average"
  align_corners: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to float32 [B, h, w, widths[1]]."""
    act = nn.relu if self.main_relu else None
    main = self._path(x, "main", act, train)
    # Paper: Eq. (5), and the sigma of X_attn, a ReLU.
    cells = resizing.pool_cells(x, self.pool_size, self.pooling)
    attention = resizing.resize_bilinear(
        self._path(cells, "attention", nn.relu, train),
        x.shape[1:3],
        align_corners=self.align_corners,
    )
    # Paper: Eq. (4).
    output = attention * main + attention
    layers.expose(self, main=main, attention=attention, output=output)
    return output

  def _path(self, x, name, last_act, train):
    """Applies the two convolutions of a path (paper: F)."""
    layer = zip(self.widths, self.kernel_sizes, self.groups, strict=True)
    for i, (width, size, groups) in enumerate(layer, start=1):
      for channels in (x.shape[-1], width):
        if channels % groups:
          raise ValueError(
              f"groups={self.groups}: {groups} does not divide a width of"
              f" {channels}, of convolution {i}; set groups[{i - 1}] to 1, or"
              " channels to a multiple"
          )
      kw = dict(groups=groups, act=nn.relu if i == 1 else last_act)
      kw |= dict(train=train, name=f"{name}{i}")
      x = layers.convolve(self, x, width, size, **kw)
    return x


class SANetHead(layers.CheckedModule):
  """Squeeze-and-attention modules on all stages, and a dense branch.

  The paper supervises three outputs: the loss is the cross-entropy of the
  masks, which fuse the four modules, plus 0.2 of the binary cross-entropy of
  the categories, plus 0.8 of the cross-entropy of the dense branch. It defines
  its prediction twice: in section 3.3 as the sum of the dense branch and the
  module on stage 4 (which only `supervise_stages` supervises itself, and only
  the module sees context), in its abstract as the masks. XLA drops what the
  prediction does not need.

  Where the text says "y_nj is the average pooled results of Y^den", y_nj are
  the targets of the categories: the share of each class in the labels, the
  loss's `targets="area"`. That the scores are pooled from the dense branch is
  the other reading, `category_from`; then Table 1 could not have the
  categorical loss without the dense branch. Scores are means of logits here,
  not of probabilities.

  Attributes:
    channels: Width of the paths of each module, and of the dense branch; None
      is a quarter of its stage's (paper).
    kernel_sizes: Of the two convolutions of each path.
    groups: Of the two convolutions of each path. (2, 1) is the paper's "2
      groups for the first convolution operations".
    class_scores: How a module's output has the classes: the second
      "convolution" of both paths has as many channels ("we adapt outputs of SA
      heads to the class number"), or a 1x1 "classifier" follows.
    main_relu: Whether a ReLU follows the main path's second convolution; Eqs.
      (1) and (4) have none.
    pool_size: Side of the cells of the coarse grid (paper: 8).
    pooling: "average" (the paper's equations and figures) or "max" (its text).
    supervise_stages: Whether to output the masks of each stage too, for losses
      of their own (caption of Figure 3).
    prediction: "dense" (section 3.3) or "masks" (abstract).
    category_loss: Whether to output `"category_logits"`.
    category_from: What they are the mean of over the image, "masks" or "dense".
    dense_loss: Whether there is a dense branch. Without it the masks are the
      prediction.
    dropout_rate: Dropout before the classifier of the dense branch.
    channel_dropout: Drop channels instead of elements.
    align_corners: Convention of all resizing of the network.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt | None = None
  kernel_sizes: tuple[KernelSize, KernelSize] = (1, 3)
  groups: tuple[bounds.PositiveInt, bounds.PositiveInt] = (2, 1)
  class_scores: Literal["convolution", "classifier"] = "convolution"
  main_relu: bool = False
  pool_size: bounds.PositiveInt = 8
  pooling: Pooling = "average"
  supervise_stages: bool = False
  prediction: Literal["dense", "masks"] = "dense"
  category_loss: bool = True
  category_from: Literal["masks", "dense"] = "masks"
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
      `"mask_logits"`, the fused masks, at the size of stage 1. `"logits"` are
      the prediction, not to be supervised: the masks, or at the size of stage 4
      what section 3.3 has. With `dense_loss` `"dense_logits"`, of stage 4, with
      `category_loss` `"category_logits"`, [B, num_classes], with
      `supervise_stages` `"stage1_mask_logits"` to `"stage4_mask_logits"`.

    Raises:
      ValueError: `groups` that do not divide a width; categories from a dense
        branch that is not there.
    """
    size = features["stage1"].shape[1:3]
    stages = {
        stage: self._attend(features[stage], stage, train) for stage in STAGES
    }
    maps = [
        resizing.resize_bilinear(x, size, align_corners=self.align_corners)
        for x in stages.values()
    ]
    masks = self._classify(jnp.concatenate(maps, axis=-1), "fusion", train)
    out = {"logits": masks, "mask_logits": masks}
    if self.supervise_stages:
      out |= {f"{stage}_mask_logits": x for stage, x in stages.items()}
    if self.dense_loss:
      x = features["stage4"]
      width = self._width(x)
      x = layers.convolve(self, x, width, name="dense", train=train)
      dense = layers.classify(self, x, train=train, name="dense_classifier")
      out["dense_logits"] = dense
      if self.prediction == "dense":
        out["logits"] = dense + stages["stage4"]
    if self.category_loss:
      pooled = {"masks": masks, "dense": out.get("dense_logits")}
      if pooled[self.category_from] is None:
        raise ValueError(
            "category_from='dense' needs the dense branch; set dense_loss to"
            " True, or category_from to 'masks'"
        )
      out["category_logits"] = jnp.mean(pooled[self.category_from], (1, 2))
    return out

  def _width(self, x):
    return self.channels or x.shape[-1] // 4

  def _attend(self, x, stage, train):
    """Returns the masks of a stage, [B, h, w, num_classes]."""
    width = self._width(x)
    by_classifier = self.class_scores == "classifier"
    x = SqueezeAttention(
        (width, width if by_classifier else self.num_classes),
        kernel_sizes=self.kernel_sizes,
        groups=self.groups,
        main_relu=self.main_relu,
        pool_size=self.pool_size,
        pooling=self.pooling,
        align_corners=self.align_corners,
        norm=self.norm,
        dtype=self.dtype,
        name=f"{stage}_attention",
    )(x, train=train)
    if by_classifier:
      x = self._classify(x, f"{stage}_classifier", train)
    return x

  def _classify(self, x, name, train):
    kw = dict(dropout_rate=0.0, name=name)
    return layers.Classifier(self.num_classes, **kw)(x, train=train)
