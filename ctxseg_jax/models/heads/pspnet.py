"""Pyramid scene parsing head (PSPNet).

Reference: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017,
https://arxiv.org/abs/1612.01105. The defaults are those of the authors' code
in PyTorch (hszhao/semseg), of which PyTorch-Encoding has the same head;
mmsegmentation's has wider branches.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import coarse
from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing


class PyramidPooling(nn.Module):
  """Averages the input over grids of several sizes, and convolves each.

  The averages and their convolutions are float32: a branch has only
  B * bins * bins samples per channel for its batch norm (see `ASPP`), and
  hardly any work. The other fields are `PSPHead`'s.
  """

  bins: tuple[int, ...]
  branch_channels: int
  norm: layers.Norm
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> list[jax.Array]:
    """Maps [B, H, W, C] to a [B, bins, bins, branch_channels] per grid."""
    maps = []
    for n in self.bins:
      y = resizing.adaptive_average_pool(x, (n, n))
      layers.expose(self, **{f"pooled{n}": y})
      kw = dict(name=f"bin{n}", train=train)
      maps.append(layers.convolve(self, y, self.branch_channels, 1, **kw))
    return maps


class PSPHead(layers.CheckedModule):
  """Pools the scene over a pyramid of grids and classifies with its context.

  Attributes:
    channels: Width of the 3x3 convolution behind the pyramid (paper: 512).
    bins: Sides of the pyramid's grids (paper: 1, 2, 3, 6).
    branch_channels: Width of each branch of the pyramid. None divides the
      input's by the number of branches (the paper and its code: 512 of 2048
      for four); mmsegmentation takes `channels` however wide the input.
    align_corners: Convention of all resizing of the network: True in semseg
      and PyTorch-Encoding, False in mmsegmentation.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  bins: bounds.PositiveInts = (1, 2, 3, 6)
  branch_channels: bounds.PositiveInt | None = None
  align_corners: bool = False
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    x = features["stage4"]
    width = self.branch_channels or x.shape[-1] // len(self.bins)
    fields = (self.bins, width, self.norm)
    pooled = PyramidPooling(*fields, name="pyramid")(x, train=train)
    maps = [x, *(coarse.Upsampled(y, self.align_corners) for y in pooled)]
    x = layers.convolve(self, maps, self.channels, name="fusion", train=train)
    return {"logits": layers.classify(self, x, train=train)}
