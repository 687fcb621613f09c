"""Auxiliary head of EncNet's paper: a second encoding, with SE-loss only.

The authors' code replaced it by an `FCNHead` on stage 3.
"""

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models.encoding import ContextEncoding
from ctxseg_jax.models.encoding import Pooling


class EncodingAuxHead(layers.CheckedModule):
  """Predicts which classes occur from an encoding of one feature map.

  Attributes:
    stage: The feature map to read.
    channels: Width of the reduced features.
    num_codewords: Number of codewords K; see `EncNetHead`.
    pooling: "mean" over codewords (the code) or "sum" (the paper).
    project: Convolve 1x1 before encoding.
  """

  num_classes: bounds.PositiveInt
  stage: layers.Stage = "stage3"
  channels: bounds.PositiveInt = 256
  num_codewords: bounds.NonNegativeInt = 32
  pooling: Pooling = "mean"
  project: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps backbone features to `"se_logits"`, [B, num_classes]."""
    x = features[self.stage]
    x = layers.convolve(self, x, self.channels, name="reduce", train=train)
    fields = (self.num_codewords, self.project, self.pooling)
    kw = dict(norm=self.norm, dtype=self.dtype, name="encoding")
    encoded = ContextEncoding(*fields, **kw)(x, train=train)
    return {"se_logits": layers.dense(self.num_classes, name="se")(encoded)}
