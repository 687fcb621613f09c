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
from ctxseg_jax.models.encoding import ContextEncoding
from ctxseg_jax.models.encoding import Pooling
from ctxseg_jax.models.layers import CheckedModule
from ctxseg_jax.models.layers import classify
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import Outputs

Gate = Literal["multiply", "relu", "residual"]


def apply_gate(x: jax.Array, gate: jax.Array, form: Gate) -> jax.Array:
  """Applies scaling factors to features; see `EncNetHead.gate`."""
  if form == "relu":
    return nn.relu(x + x * gate)
  if form == "residual":
    return x + x * gate
  return x * gate


class EncNetHead(CheckedModule):
  """Scales channels by the encoded context and predicts which classes occur.

  Attributes:
    num_classes: Number of classes.
    channels: Width C (paper: 512).
    num_codewords: Number of codewords K (paper: 32).
    gate: How the scaling factors g act on the features F: "relu" for
      ReLU(F + F g) (the code), "residual" for F + F g (its first release; the
      same function, as F comes out of a ReLU and g is positive), "multiply"
      for F g (the paper).
    pooling: "mean" over codewords (the code) or "sum" (the paper).
    project: Convolve 1x1 before encoding (the code since June 2018).
    scale_features: Divide the features by sqrt(C / 2) before encoding, so that
      their squared norm starts near 1 and the assignments soft. Not in the
      paper; learns faster on small data.
    lateral: Fuse stages 2 and 3 into F (PASCAL-Context and COCO in the code).
    se_loss: Whether to output `"se_logits"`, for the SE-loss.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms.
    dtype: Compute dtype; distances, encoding, gate and logits are float32.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  num_codewords: bounds.PositiveInt = 32
  gate: Gate = "relu"
  pooling: Pooling = "mean"
  project: bool = True
  scale_features: bool = False
  lateral: bool = False
  se_loss: bool = True
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: Outputs, *, train: bool) -> Outputs:
    """Maps `"stage4"` to class scores.

    With `lateral`, `"stage2"` and `"stage3"` are read as well; they need the
    resolution of `"stage4"` (output stride 8).

    Returns:
      `"logits"` [B, h, w, num_classes] and, with `se_loss`, `"se_logits"`
      [B, num_classes].

    Raises:
      ValueError: Stages of unequal sizes with `lateral`.
    """
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = features["stage4"]
    x = ConvBNAct(self.channels, name="reduce", **kw)(x, train=train)
    if self.lateral:
      x = self._fuse(x, features, kw, train)
    encoded = ContextEncoding(
        num_codewords=self.num_codewords,
        project=self.project,
        pooling=self.pooling,
        scale_features=self.scale_features,
        name="encoding",
        **kw,
    )(x, train=train)
    gate = nn.sigmoid(nn.Dense(self.channels, name="gate")(encoded))
    x = apply_gate(x, gate.astype(self.dtype)[:, None, None], self.gate)
    out = {"logits": classify(self, x, train=train)}
    if self.se_loss:
      out["se_logits"] = nn.Dense(self.num_classes, name="se")(encoded)
    return out

  def _fuse(self, x, features, kw, train):
    maps = [x]
    for stage in ("stage2", "stage3"):
      if features[stage].shape[:3] != x.shape[:3]:
        raise ValueError(
            f"lateral: expected {stage} at the size of stage4,"
            f" {x.shape[1:3]}, got {features[stage].shape[1:3]}; set the"
            " backbone's output_stride to 8, or lateral to False"
        )
      conv = ConvBNAct(self.channels, 1, name=f"lateral_{stage}", **kw)
      maps.append(conv(features[stage], train=train))
    x = jnp.concatenate(maps, axis=-1)
    return ConvBNAct(self.channels, name="fusion", **kw)(x, train=train)
