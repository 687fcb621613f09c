"""Head with atrous spatial pyramid pooling (DeepLabV3).

Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, https://arxiv.org/abs/1706.05587. The forms of
PyTorch-Encoding and mmsegmentation are options.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models.aspp import ASPP


class DeepLabV3Head(layers.CheckedModule):
  """Atrous spatial pyramid pooling and a classifier.

  PyTorch-Encoding: `refine=True, dropout_rate=0.1`. mmsegmentation:
  `channels=512, project_kernel_size=3, aspp_dropout_rate=0.0,
  dropout_rate=0.1, channel_dropout=True`.

  Attributes:
    channels: Width C (paper: 256).
    rates: Dilations of the 3x3 branches: 12, 24, 36 at output stride 8, the
      backbones' default; 6, 12, 18 at 16. The parameters are the same.
    project_kernel_size: 1 (paper) or 3 (mmsegmentation).
    refine: Convolve 3x3 once more before the classifier (PyTorch-Encoding).
    aspp_dropout_rate: Dropout after the projection.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements, in both.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 256
  rates: tuple[bounds.PositiveInt, ...] = (12, 24, 36)
  project_kernel_size: Literal[1, 3] = 1
  refine: bool = False
  aspp_dropout_rate: bounds.DropoutRate = 0.5
  dropout_rate: bounds.DropoutRate = 0.0
  channel_dropout: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = ASPP(
        self.channels,
        self.rates,
        self.project_kernel_size,
        separable=False,
        dropout_rate=self.aspp_dropout_rate,
        channel_dropout=self.channel_dropout,
        name="aspp",
        **kw,
    )(features["stage4"], train=train)
    if self.refine:
      x = layers.convolve(self, x, self.channels, name="refine", train=train)
    return {"logits": layers.classify(self, x, train=train)}
