"""Context Encoding head (EncNet).

Reference: Zhang et al., "Context Encoding for Semantic Segmentation", CVPR
2018, https://arxiv.org/abs/1803.08904. Where the paper and the authors' code
(zhanghang1989/PyTorch-Encoding) differ we follow the code, which the published
weights belong to; the paper's readings are options.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import errors
from ctxseg_jax import settings
from ctxseg_jax.models.encoding import effective_codewords
from ctxseg_jax.models.encoding import encode
from ctxseg_jax.models.encoding import uniform
from ctxseg_jax.models.layers import batch_norm
from ctxseg_jax.models.layers import Classifier
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm

GATES = ("multiply", "relu", "residual")
POOLINGS = ("mean", "sum")


class ContextEncoding(nn.Module):
  """Encodes a feature map into one vector of global statistics.

  Attributes:
    num_codewords: Number of codewords K (paper: 32).
    project: Convolve 1x1 before encoding, as the code does since June 2018;
      the paper's first release did not.
    pooling: "mean" over the codewords (the code) or "sum" (the paper).
    scale_features: Divide the features by sqrt(C / 2) before encoding, so that
      their squared norm starts near 1 and the assignments soft. Not in the
      paper; learns faster on small data.
    norm: Settings of the batch norms.
    dtype: Compute dtype; distances and the encoding are float32.
  """

  num_codewords: int = 32
  project: bool = True
  pooling: str = "mean"
  scale_features: bool = False
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to the encoded semantics e, float32 [B, C]."""
    b, h, w, c = x.shape
    if self.project:
      x = ConvBNAct(
          c,
          1,
          norm=self.norm,
          dtype=self.dtype,
          name="project",
      )(x, train=train)
    if self.scale_features:
      x = x / jnp.asarray((c / 2) ** 0.5, x.dtype)
    bound = (self.num_codewords * c) ** -0.5
    codewords = self.param(
        "codewords", uniform(-bound, bound), (self.num_codewords, c)
    )
    scale = self.param("scale", uniform(-1.0, 0.0), (self.num_codewords,))
    encoding, assignments = encode(x.reshape(b, h * w, c), codewords, scale)
    self.sow(
        "diagnostics", "effective_codewords", effective_codewords(assignments)
    )
    # Batch norm with the codewords as channels: statistics over B and C.
    encoding = batch_norm(
        train=train,
        norm=self.norm,
        dtype=jnp.float32,
        name="bn",
        axis=1,
    )(encoding)
    encoding = nn.relu(encoding)
    pool = jnp.mean if self.pooling == "mean" else jnp.sum
    return pool(encoding, axis=1)


class EncNetHead(nn.Module):
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
    project: See `ContextEncoding`.
    scale_features: See `ContextEncoding`.
    lateral: Fuse stages 2 and 3 into F (PASCAL-Context and COCO in the code).
    se_loss: Whether to output `"se_logits"`, for the SE-loss.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms.
    dtype: Compute dtype; distances, encoding, gate and logits are float32.
  """

  num_classes: int
  channels: int = 512
  num_codewords: int = 32
  gate: str = "relu"
  pooling: str = "mean"
  project: bool = True
  scale_features: bool = False
  lateral: bool = False
  se_loss: bool = True
  dropout_rate: float = 0.1
  channel_dropout: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    settings.check_choice("gate", self.gate, GATES)
    settings.check_choice("pooling", self.pooling, POOLINGS)
    super().__post_init__()

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; `"stage4"`, with `lateral` also `"stage2"`
        and `"stage3"` at the same resolution (output stride 8), are read.
      train: Whether batch norm uses batch statistics, and dropout drops.

    Returns:
      `"logits"` [B, h, w, num_classes] and, with `se_loss`, `"se_logits"`
      [B, num_classes].

    Raises:
      ValueError: Unknown `gate`, or stages of unequal sizes with `lateral`.
    """
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = ConvBNAct(self.channels, name="reduce", **kw)(
        features["stage4"], train=train
    )
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
    logits = Classifier(
        self.num_classes,
        self.dropout_rate,
        self.channel_dropout,
        name="classifier",
    )(x, train=train)
    out = {"logits": logits}
    if self.se_loss:
      out["se_logits"] = nn.Dense(self.num_classes, name="se")(encoded)
    return out

  def _fuse(self, x, features, kw, train):
    maps = [x]
    for stage in ("stage2", "stage3"):
      if features[stage].shape[:3] != x.shape[:3]:
        raise errors.UserError(
            f"config: model.head: lateral=True needs {stage} at the size of"
            " stage4, got"
            f" {features[stage].shape[1:3]} and {x.shape[1:3]};"
            " set the backbone's output_stride to 8."
        )
      maps.append(
          ConvBNAct(self.channels, 1, name=f"lateral_{stage}", **kw)(
              features[stage], train=train
          )
      )
    return ConvBNAct(self.channels, name="fusion", **kw)(
        jnp.concatenate(maps, axis=-1), train=train
    )


def apply_gate(x: jax.Array, gate: jax.Array, form: str) -> jax.Array:
  """Applies scaling factors to features; see `EncNetHead.gate`."""
  if form == "relu":
    return nn.relu(x + x * gate)
  if form == "residual":
    return x + x * gate
  return x * gate


class EncodingAuxHead(nn.Module):
  """The paper's auxiliary: a second encoding on stage 3, with SE-loss only.

  The code replaced it by an `FCNHead` on stage 3.

  Attributes:
    num_classes: Number of classes.
    stage: The feature map to read.
    channels: Width of the reduced features.
    num_codewords: Number of codewords K.
    pooling: See `ContextEncoding`.
    project: See `ContextEncoding`.
    norm: Settings of the batch norms.
    dtype: Compute dtype.
  """

  num_classes: int
  stage: str = "stage3"
  channels: int = 256
  num_codewords: int = 32
  pooling: str = "mean"
  project: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    settings.check_choice("pooling", self.pooling, POOLINGS)
    super().__post_init__()

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to `"se_logits"`, [B, num_classes]."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = ConvBNAct(self.channels, name="reduce", **kw)(
        features[self.stage], train=train
    )
    encoded = ContextEncoding(
        num_codewords=self.num_codewords,
        project=self.project,
        pooling=self.pooling,
        name="encoding",
        **kw,
    )(x, train=train)
    return {"se_logits": nn.Dense(self.num_classes, name="se")(encoded)}
