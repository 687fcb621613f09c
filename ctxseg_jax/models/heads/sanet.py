"""Squeeze-and-Attention head (SANet).

Reference: Zhong et al., "Squeeze-and-Attention Networks for Semantic
Segmentation", CVPR 2020, https://arxiv.org/abs/1909.03402. There is no code by
the authors. What the paper leaves open is chosen here: the kernels of the two
convolutions of a path (1x1, 3x3) and their groups, the fusion of the four
modules (a 1x1 convolution at the size of stage 1), and the category scores
(the mean of the masks). The parameters come out at 56.63 M with ResNet-101,
the paper has 55.5 M.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import settings
from ctxseg_jax.models.layers import Classifier
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import resize_bilinear

POOLINGS = ("average", "max")
PREDICTIONS = ("dense", "masks")

STAGES = ("stage1", "stage2", "stage3", "stage4")


def pool(x: jax.Array, size: int, kind: str) -> jax.Array:
  """Pools [B, h, w, C] over cells without overlap to float32.

  The last cells may hang over the edge, and count their real pixels only: 60
  pixels make 8 cells of 8, the last one of 4.

  Args:
    x: Maps, [B, h, w, C].
    size: Side of a cell.
    kind: "average" or "max".

  Returns:
    [B, ceil(h / size), ceil(w / size), C].
  """
  b, h, w, c = x.shape
  rows, cols = -(-h // size), -(-w // size)
  # Not a reduction over windows: as these do not overlap, reshaping does, and
  # its gradient is many times faster on CPUs.
  cells = jnp.pad(
      x.astype(jnp.float32),
      ((0, 0), (0, rows * size - h), (0, cols * size - w), (0, 0)),
      constant_values=-jnp.inf if kind == "max" else 0.0,
  ).reshape(b, rows, size, cols, size, c)
  if kind == "max":
    return jnp.max(cells, axis=(2, 4))
  heights = np.minimum(size, h - size * np.arange(rows))
  widths = np.minimum(size, w - size * np.arange(cols))
  counts = np.outer(heights, widths).astype(np.float32)
  return jnp.sum(cells, axis=(2, 4)) / counts[..., None]


class SqueezeAttention(nn.Module):
  """Weights features by what a path on a coarse grid makes of the same input.

  The attention comes out of a ReLU, not a sigmoid: it is not bounded, and it
  is added as well as multiplied.

  Attributes:
    channels: Width of both paths.
    groups: Groups of both convolutions of each path.
    pool_size: Side of the cells of the coarse grid.
    pooling: See `pool`.
    align_corners: Convention of upsampling; see `layers.resize_matrix`.
    norm: Settings of the batch norms.
    dtype: Compute dtype; pooling and upsampling are float32.
  """

  channels: int
  groups: int = 2
  pool_size: int = 8
  pooling: str = "average"
  align_corners: bool = False
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to [B, h, w, channels].

    Raises:
      UserError: A width that the groups do not divide.
    """
    for width in (x.shape[-1], self.channels):
      if width % self.groups:
        raise errors.UserError(
            f"config: model.head: groups={self.groups} does not divide a width"
            f" of {width}; set channels to a multiple of it, or groups to 1."
        )

    def path(x, name):
      kw = dict(groups=self.groups, norm=self.norm, dtype=self.dtype)
      x = ConvBNAct(self.channels, 1, name=f"{name}1", **kw)(x, train=train)
      return ConvBNAct(self.channels, 3, name=f"{name}2", **kw)(x, train=train)

    main = path(x, "main")
    # Paper: Eq. (5); the ReLU of its second convolution is the paper's sigma.
    attention = path(pool(x, self.pool_size, self.pooling), "attention")
    attention = resize_bilinear(
        attention, x.shape[1:3], align_corners=self.align_corners
    ).astype(self.dtype)
    # Paper: Eq. (4).
    return attention * main + attention


class SANetHead(nn.Module):
  """Squeeze-and-attention modules on all stages, and a dense branch.

  The paper supervises three outputs: the loss is the cross-entropy of the
  masks, which fuse the four modules, plus 0.2 of the binary cross-entropy of
  the categories, plus 0.8 of the cross-entropy of the dense branch. What it
  predicts with it says twice. By its section 3.3 that is the sum of the dense
  branch and of the module on stage 4: no supervised output, of which only the
  latter sees context. By its abstract that is what the four modules give
  together, the masks.

  What a compiled program does not use it does not compute: evaluation runs
  either the dense branch and one module, or the modules and their fusion.

  Attributes:
    num_classes: Number of classes.
    channels: Width of the paths of each module, and of the dense branch; None
      is a quarter of its stage's (paper).
    groups: See `SqueezeAttention` (paper: 2, for the first convolution).
    pool_size: See `SqueezeAttention` (paper: 8).
    pooling: "average" (the paper's equations and figures) or "max" (its text).
    prediction: "dense" (section 3.3) or "masks" (abstract).
    category_loss: Whether to output `"category_logits"`.
    dense_loss: Whether there is a dense branch. Without it the masks are the
      prediction.
    dropout_rate: Dropout before the classifier of the dense branch.
    channel_dropout: Drop channels instead of elements.
    align_corners: Convention of upsampling attention and masks; see
      `layers.resize_matrix`. The model has the same field for the logits.
    norm: Settings of the batch norms.
    dtype: Compute dtype; pooling, upsampling and logits are float32.
  """

  num_classes: int
  channels: int | None = None
  groups: int = 2
  pool_size: int = 8
  pooling: str = "average"
  prediction: str = "dense"
  category_loss: bool = True
  dense_loss: bool = True
  dropout_rate: float = 0.1
  channel_dropout: bool = True
  align_corners: bool = False
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    settings.check_choice("pooling", self.pooling, POOLINGS)
    settings.check_choice("prediction", self.prediction, PREDICTIONS)
    super().__post_init__()

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; `"stage1"`, [B, h1, w1, C1], to `"stage4"`,
        [B, h4, w4, C4], are read.
      train: Whether batch norm uses batch statistics, and dropout drops.

    Returns:
      The masks, [B, h1, w1, num_classes]: as `"logits"` where they are the
      prediction, else as `"mask_logits"` beside `"logits"`, [B, h4, w4,
      num_classes], which are not to be supervised. With `dense_loss`
      `"dense_logits"`, [B, h4, w4, num_classes], with `category_loss`
      `"category_logits"`, [B, num_classes].

    Raises:
      UserError: A width of a path that the groups do not divide.
    """
    kw = dict(norm=self.norm, dtype=self.dtype)

    def width(stage):
      return self.channels or features[stage].shape[-1] // 4

    def attend(stage):
      x = SqueezeAttention(
          width(stage),
          self.groups,
          self.pool_size,
          self.pooling,
          self.align_corners,
          name=f"{stage}_attention",
          **kw,
      )(features[stage], train=train)
      return Classifier(
          self.num_classes, dropout_rate=0.0, name=f"{stage}_classifier"
      )(x, train=train)

    size = features["stage1"].shape[1:3]
    outputs = {stage: attend(stage) for stage in STAGES}
    maps = [
        resize_bilinear(x, size, align_corners=self.align_corners)
        for x in outputs.values()
    ]
    masks = Classifier(self.num_classes, dropout_rate=0.0, name="fusion")(
        jnp.concatenate(maps, axis=-1), train=train
    )
    out = {"logits": masks}
    if self.category_loss:
      out["category_logits"] = jnp.mean(masks, axis=(1, 2))
    if self.dense_loss:
      x = ConvBNAct(width("stage4"), name="dense", **kw)(
          features["stage4"], train=train
      )
      dense = Classifier(
          self.num_classes,
          self.dropout_rate,
          self.channel_dropout,
          name="dense_classifier",
      )(x, train=train)
      out["dense_logits"] = dense
      if self.prediction == "dense":
        out |= {"logits": dense + outputs["stage4"], "mask_logits": masks}
    return out
