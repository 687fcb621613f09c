"""Matrix factorisation head (MFNet).

References: the report on MFNet, and the branch `mfnet` of
nageshgurram12/generic-semantic-segmentation. They differ. In the report the
low-rank features X' = YZ replace X; but YZ is a learned constant, so only stage
1 of the image reaches the decoder. The code should decode ReLU(YZ) + conv1(X)
from the tenth epoch on, but its trainer does not pass the epoch to the network:
the published scores are of a network without the low-rank path. The default is
the path as intended in the code; the report's readings are options.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import products
from ctxseg_jax.models.decoder import decode


class MFHead(layers.CheckedModule):
  """Adds a learned low-rank map to the features, and decodes with stage 1.

  The switch `low_rank` (collection `"switches"`) turns the low-rank path on
  after a warm-up that the config sets. Until then X itself is decoded, and Y,
  Z and conv1 only have the gradient of the reconstruction loss, if any.

  Attributes:
    channels: Width of the decoder (code: 256).
    low_channels: Width to which stage 1 is reduced (code: 48).
    rank: Columns of Y, rows of Z (code: 64).
    map_size: (h, w) of stage 4, as Z has a column per position: 33 x 33 is a
      crop of 513 x 513 at output stride 16 (report).
    factor_init: What Y and Z are drawn from: "uniform", within 1 / sqrt(size)
      of each (code), or "normal", N(0, 1) (report): YZ then starts with a
      standard deviation of sqrt(rank) = 8.
    decodes: What is decoded: "sum" is conv1(X) + ReLU(YZ) (code), "low_rank"
      is YZ in the place of X (report).
    reconstructs: What YZ is to equal: the "projection" conv1(X) (code) or the
      "features" X (report).
    reconstruction_loss: Whether to output the residual of the reconstruction.
    decoder_dropout_rate: Dropout between the two convolutions of the decoder.
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements, in both.
    align_corners: Convention of all resizing of the network (code: True).
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 256
  low_channels: bounds.PositiveInt = 48
  rank: bounds.PositiveInt = 64
  map_size: tuple[bounds.PositiveInt, bounds.PositiveInt] = (33, 33)
  factor_init: Literal["uniform", "normal"] = "uniform"
  decodes: Literal["sum", "low_rank"] = "sum"
  reconstructs: Literal["projection", "features"] = "projection"
  reconstruction_loss: bool = True
  decoder_dropout_rate: bounds.DropoutRate = 0.5
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = False
  align_corners: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"`, X, and `"stage1"` to `"logits"` at the size of stage 1.

    Training, with `reconstruction_loss`, has `"reconstruction_residual"`, too:
    what is reconstructed less YZ, [B, h * w, C].
    """
    x = features["stage4"]
    h, w, c = x.shape[1:]
    _check_size((h, w), tuple(self.map_size))
    init = _uniform
    if self.factor_init == "normal":
      init = nn.initializers.normal(1.0)
    y = self.param("y", init, (c, self.rank))
    z = self.param("z", init, (self.rank, h * w))
    is_on = self.variable("switches", "low_rank", jnp.ones, ()).value > 0
    low_rank = products.einsum("cr,rn->nc", y, z)
    layers.expose(
        self, channel_factors=y[None], spatial_factors=z.reshape(1, -1, h, w)
    )
    target, decoded = x, low_rank.reshape(h, w, c).astype(self.dtype)
    projects = self.reconstruction_loss and self.reconstructs == "projection"
    if projects or self.decodes == "sum":
      projected = nn.Dense(c, dtype=self.dtype, name="conv1")(x)
      if projects:
        target = projected
      if self.decodes == "sum":
        added = nn.relu(decoded)[None]
        layers.expose(self, before=projected, added=is_on * added)
        decoded = projected + added
    x = jnp.where(is_on, decoded, x.astype(self.dtype))
    x = layers.convolve(self, x, self.channels, 1, name="conv2", train=train)
    out = {"logits": decode(self, x, features["stage1"], train=train)}
    if self.reconstruction_loss and (train or self.is_initializing()):
      target = target.reshape(-1, h * w, c).astype(jnp.float32)
      out["reconstruction_residual"] = target - low_rank
    return out


def _uniform(key, shape):
  bound = (shape[0] * shape[1]) ** -0.5
  return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _check_size(found, expected):
  if found == expected:
    return
  crops = []
  for stride in (4, 8, 16):
    sides = [f"{stride * (n - 1) + 1}-{stride * n}" for n in expected]
    crops.append(f"{stride}: {' x '.join(sides)}")
  raise ValueError(
      f"map_size: stage 4 has {found[0]}x{found[1]} positions, but map_size and"
      f" with it Z have {expected[0]}x{expected[1]}: train on crops of a size"
      f" that gives them (by output stride, {', '.join(crops)}) and, if images"
      " differ from it, evaluate and predict with mode 'slide' and that"
      " crop_size"
  )
