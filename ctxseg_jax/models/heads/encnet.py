"""Context Encoding head (EncNet).

Reference: Zhang et al., "Context Encoding for Semantic Segmentation", CVPR
2018, https://arxiv.org/abs/1803.08904. Where the paper and the authors' code
(zhanghang1989/PyTorch-Encoding) differ we follow the code, which the published
weights belong to; the paper's readings are options.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models.encoding import ContextEncoding
from ctxseg_jax.models.encoding import Pooling

Gate = Literal["multiply", "relu", "residual"]


def apply_gate(x: jax.Array, gate: jax.Array, form: Gate) -> jax.Array:
  """Applies scaling factors to features; see `EncNetHead.gate`."""
  if form == "relu":
    return nn.relu(x + x * gate)
  if form == "residual":
    return x + x * gate
  return x * gate


class EncNetHead(layers.CheckedModule):
  """Scales channels by the encoded context and predicts which classes occur.

  Attributes:
    channels: Width C (paper: 512).
    num_codewords: Number of codewords K (paper: 32). With 0 the mean over the
      image takes the place of the encoding (the paper's K = 0).
    gate: How the scaling factors g act on the features F: "relu" for
      ReLU(F + F g) (the code), "residual" for F + F g (its first release; the
      same function, as F comes out of a ReLU and g is positive), "multiply"
      for F g (the paper).
    pooling: "mean" over codewords (the code) or "sum" (the paper).
    project: Convolve 1x1 before encoding (the code since June 2018).
    scale_features: Divide the features by sqrt(C / 2) before encoding, so that
      their squared norm starts near 1 and the assignments soft. Not in the
      paper; learns faster on small data.
    lateral: Fuse stages 2 and 3 into F (PASCAL-Context, VOC and COCO in the
      code).
    se_loss: Whether to output `"se_logits"`, for the SE-loss.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  num_codewords: bounds.NonNegativeInt = 32
  gate: Gate = "relu"
  pooling: Pooling = "mean"
  project: bool = True
  scale_features: bool = False
  lateral: bool = False
  se_loss: bool = True
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"` and `"se_logits"`, [B, num_classes]."""
    x = features["stage4"]
    x = layers.convolve(self, x, self.channels, name="reduce", train=train)
    if self.lateral:
      x = self._fuse(x, features, train)
    fields = (self.num_codewords, self.project, self.pooling)
    kw = dict(norm=self.norm, dtype=self.dtype, name="encoding")
    encoded = ContextEncoding(*fields, self.scale_features, **kw)(
        x, train=train
    )
    gate = nn.sigmoid(layers.dense(self.channels, name="gate")(encoded))
    layers.expose(self, gates=gate)
    x = apply_gate(x, gate.astype(self.dtype)[:, None, None], self.gate)
    out = {"logits": layers.classify(self, x, train=train)}
    if self.se_loss:
      out["se_logits"] = layers.dense(self.num_classes, name="se")(encoded)
    return out

  def _fuse(self, x, features, train):
    maps = [x]
    for stage in ("stage2", "stage3"):
      if features[stage].shape[:3] != x.shape[:3]:
        raise ValueError(
            f"lateral: expected {stage} at the size of stage4,"
            f" {x.shape[1:3]}, got {features[stage].shape[1:3]}; set the"
            " backbone's output_stride to 8, or lateral to False"
        )
      kw = dict(kernel_size=1, name=f"lateral_{stage}", train=train)
      maps.append(layers.convolve(self, features[stage], self.channels, **kw))
    x = jnp.concatenate(maps, axis=-1)
    return layers.convolve(self, x, self.channels, name="fusion", train=train)
