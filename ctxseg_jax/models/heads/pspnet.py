"""Pyramid scene parsing head (PSPNet).

Reference: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017,
https://arxiv.org/abs/1612.01105. The defaults are those of the authors' code
in PyTorch (hszhao/semseg), of which PyTorch-Encoding has the same head;
mmsegmentation's has wider branches.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models.layers import adaptive_average_pool
from ctxseg_jax.models.layers import Classifier
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import resize_bilinear


class PyramidPooling(nn.Module):
  """Concatenates the input and its averages over grids of several sizes.

  The averages and their convolutions are float32: a branch has only
  B * bins * bins samples per channel for its batch norm, and hardly any work.

  Attributes:
    bins: Side of each grid.
    branch_channels: Width of each branch.
    align_corners: Convention of the upsampling; see `layers.resize_matrix`.
    norm: Settings of the batch norms.
    dtype: Dtype of the result.
  """

  bins: tuple[int, ...]
  branch_channels: int
  align_corners: bool
  norm: Norm
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C + len(bins) * branch_channels]."""
    maps = [x.astype(self.dtype)]
    for n in self.bins:
      pooled = ConvBNAct(
          self.branch_channels,
          1,
          norm=self.norm,
          name=f"bin{n}",
      )(adaptive_average_pool(x, (n, n)), train=train)
      pooled = resize_bilinear(
          pooled, x.shape[1:3], align_corners=self.align_corners
      )
      maps.append(pooled.astype(self.dtype))
    return jnp.concatenate(maps, axis=-1)


class PSPHead(nn.Module):
  """Pools the scene over a pyramid of grids and classifies with its context.

  Attributes:
    num_classes: Number of classes.
    channels: Width of the 3x3 convolution behind the pyramid (paper: 512).
    bins: Sides of the pyramid's grids (paper: 1, 2, 3, 6).
    branch_channels: Width of each branch of the pyramid. None divides the
      input's by the number of branches (the paper and its code: 512 of 2048
      for four); mmsegmentation takes `channels` however wide the input.
    align_corners: Convention of upsampling the branches; see
      `layers.resize_matrix`. True in semseg and PyTorch-Encoding, False in
      mmsegmentation; the model has the same field for the logits.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms. The
      branch of a single bin has B samples per channel, so that without the
      axis small shares per device have no statistics to speak of.
    dtype: Compute dtype; pooling, branches and logits are float32.
  """

  num_classes: int
  channels: int = 512
  bins: tuple[int, ...] = (1, 2, 3, 6)
  branch_channels: int | None = None
  align_corners: bool = False
  dropout_rate: float = 0.1
  channel_dropout: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; only `"stage4"`, [B, h, w, C4], is read.
      train: Whether batch norm uses batch statistics, and dropout drops.

    Returns:
      `"logits"`, [B, h, w, num_classes].
    """
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = features["stage4"]
    x = PyramidPooling(
        self.bins,
        self.branch_channels or x.shape[-1] // len(self.bins),
        self.align_corners,
        name="pyramid",
        **kw,
    )(x, train=train)
    x = ConvBNAct(self.channels, name="fusion", **kw)(x, train=train)
    logits = Classifier(
        self.num_classes,
        self.dropout_rate,
        self.channel_dropout,
        name="classifier",
    )(x, train=train)
    return {"logits": logits}
