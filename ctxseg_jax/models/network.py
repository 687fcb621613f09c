"""The network: a backbone, a head, sometimes an auxiliary head."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import errors
from ctxseg_jax.bounds import PositiveFloat
from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing
from ctxseg_jax.models.backbones import BACKBONES
from ctxseg_jax.models.heads import HEADS

# What each field of a network, or of a part of it, that holds a part of it can
# be, by name.
PARTS = {"backbone": BACKBONES, "head": HEADS, "aux_head": HEADS, "host": HEADS}


@dataclasses.dataclass(frozen=True)
class Common:
  """What all parts of a network share.

  Attributes:
    dtype: Compute dtype; parameters, statistics, logits and losses are float32.
    norm: The batch norms.
    align_corners: Convention of all resizing, of images, features and logits:
      whether the centres of the corner pixels stay in place.
  """

  dtype: Literal["float32", "bfloat16"] = "float32"
  norm: layers.Norm = layers.Norm()
  align_corners: bool = False


class RefusedFeaturesError(errors.UserError, ValueError):
  """The features of the backbone do not suit a head and its options."""


class _Features(dict):
  """The outputs of a backbone; what it does not have is a `ValueError`."""

  def __missing__(self, name):
    raise ValueError(f"the backbone has no {name!r}, only {', '.join(self)}")


class SegmentationModel(nn.Module):
  """Maps images to class scores per pixel, or per image if the head does.

  Attributes:
    backbone: Module returning `{"stem": ..., "stage1": ..., "stage4": ...}`.
    head: Module returning at least `{"logits": [B, h, w, num_classes]}`, or
      [B, num_classes].
    aux_head: Optional second head; its outputs exist only to be supervised.
    align_corners: Convention of all resizing; see `resizing.resize_matrix`.
    scales: Factors, 1 among them, by which images are resized before each
      passes through the same network; the logits are fused by their maximum
      (DeepLabV2: 1, 0.75, 0.5). Empty is the plain network.
    upsample_in_training: Bring maps to the image size in training too. False
      has them supervised by labels reduced to their size (DeepLabV2).
  """

  backbone: nn.Module
  head: nn.Module
  aux_head: nn.Module | None = None
  align_corners: bool = False
  scales: tuple[PositiveFloat, ...] = ()
  upsample_in_training: bool = True

  def __post_init__(self):
    names = {scale_name(scale, "") for scale in self.scales}
    distinct = len(names) == len(self.scales)
    if self.scales and not (distinct and 1.0 in self.scales):
      raise ValueError(
          "scales: expected distinct positive factors with 1 among them, as"
          f" (1.0, 0.75, 0.5), or none, got {self.scales!r}"
      )
    super().__post_init__()

  def __call__(
      self, images: jax.Array, *, train: bool = False, upsample: bool = True
  ) -> dict[str, jax.Array]:
    """Runs the network.

    Args:
      images: Normalised, [B, H, W, 3].
      train: Whether to use batch statistics and dropout, and to run the
        auxiliary head.
      upsample: Whether to bring maps to the image size; else they are as the
        heads return them.

    Returns:
      float32 `"logits"` [B, H, W, num_classes] and the head's other outputs by
      their names, maps upsampled; then, if `train`, the auxiliary head's with
      `aux_` before their names. With `scales` the outputs at each have the
      factor before their names, `"scale75_logits"`; `"logits"` is the fusion.
    """
    if self.scales:
      out = self._fuse_scales(images, train)
    else:
      out = self._forward(images, train)
    if not upsample or (train and not self.upsample_in_training):
      return out
    return self.upsample(out, images.shape[1:3])

  def upsample(
      self, out: Mapping[str, jax.Array], size: Sequence[int]
  ) -> dict[str, jax.Array]:
    """Brings the maps among outputs to the image size (H, W) = `size`."""
    return {
        k: self._resize(x, size) if x.ndim == 4 else x for k, x in out.items()
    }

  def _forward(self, images, train):
    """Returns the outputs at the resolution of the heads."""
    features = _Features(self.backbone(images, train=train))
    out = self._run("head", features, train)
    if self.aux_head is not None and (train or self.is_initializing()):
      aux = self._run("aux_head", features, train)
      out |= {f"aux_{name}": x for name, x in aux.items()}
    return out

  def _run(self, field, features, train):
    """Returns a head's outputs, or names its field in what it refuses."""
    try:
      return dict(getattr(self, field)(features, train=train))
    except ValueError as e:
      raise RefusedFeaturesError(f"config: model.{field}: {e}") from e

  def _fuse_scales(self, images, train):
    """Returns the outputs at each scale, and the largest logits of all."""
    out = {}
    for scale in self.scales:
      # Rounded down, as by PyTorch; 321 pixels become 240 and 160.
      size = [int(n * scale) for n in images.shape[1:3]]
      for name, x in self._forward(self._resize(images, size), train).items():
        out[scale_name(scale, name)] = x
    logits = [out[scale_name(scale, "logits")] for scale in self.scales]
    size = out[scale_name(1.0, "logits")].shape[1:3]
    fused = [self._resize(x, size) for x in logits]
    return {"logits": functools.reduce(jnp.maximum, fused)} | out

  def _resize(self, x, size):
    return resizing.resize_bilinear(x, size, align_corners=self.align_corners)


def scale_name(scale: float, name: str) -> str:
  """Returns what an output is called at a scale: `scale75_logits`."""
  return f"scale{round(100 * scale)}_{name}"
