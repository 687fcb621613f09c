"""The network: a backbone, a head, sometimes an auxiliary head."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import errors
from ctxseg_jax import settings
from ctxseg_jax.backbones import BACKBONES
from ctxseg_jax.heads import HEADS
from ctxseg_jax.layers import Norm
from ctxseg_jax.layers import resize_bilinear

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class SegmentationModel(nn.Module):
  """Maps images to class scores per pixel, or per image if the head does.

  Attributes:
    backbone: Module returning `{"stem": ..., "stage1": ..., "stage4": ...}`.
    head: Module returning at least `{"logits": [B, h, w, num_classes]}`, or
      [B, num_classes].
    aux_head: Optional second head; its outputs exist only to be supervised.
    align_corners: Convention of the upsampling; see `layers.resize_matrix`.
  """

  backbone: nn.Module
  head: nn.Module
  aux_head: nn.Module | None = None
  align_corners: bool = False

  def __call__(
      self, images: jax.Array, *, train: bool = False
  ) -> dict[str, jax.Array]:
    """Runs the network.

    Args:
      images: Normalised images, [B, H, W, 3].
      train: Whether to use batch statistics and dropout, and to run the
        auxiliary head.

    Returns:
      A dict with float32 `"logits"` [B, H, W, num_classes] and whatever else
      the head returned under its own names (e.g. `"se_logits"`), maps
      upsampled, vectors untouched; the auxiliary head's outputs follow with
      `aux_` before their names, if `train`.
    """
    features = self.backbone(images, train=train)
    out = dict(self.head(features, train=train))
    if self.aux_head is not None and (train or self.is_initializing()):
      aux = self.aux_head(features, train=train)
      out |= {f"aux_{name}": x for name, x in aux.items()}
    size = images.shape[1:3]
    return {
        name: x
        if x.ndim != 4
        else resize_bilinear(x, size, align_corners=self.align_corners)
        for name, x in out.items()
    }


def build(
    config: Mapping[str, Any], num_classes: int, *, bn_axis_name: str | None
) -> SegmentationModel:
  """Builds the network that `config.model` describes.

  Args:
    config: Keys `backbone`, `head` (each a `name` and its fields; a field
      `host` is a head again), and optionally `aux_head`, `dtype`,
      `align_corners` and `norm` (fields of `layers.Norm`).
    num_classes: Number of classes of the data set.
    bn_axis_name: Mesh axis over which batch norms are reduced.

  Raises:
    UserError: An unknown key, name or value, named by its dotted key.
  """
  settings.check_keys(
      config,
      ("aux_head", "dtype", "align_corners", "norm"),
      "model",
      required=("backbone", "head"),
  )
  common = dict(
      num_classes=num_classes,
      norm=settings.build(
          Norm, config.get("norm", {}), "model.norm", axis_name=bn_axis_name
      ),
      dtype=settings.lookup(
          DTYPES, config.get("dtype", "float32"), "config: model.dtype"
      ),
  )

  def part(section, registry, where):
    if "name" not in section:
      raise errors.UserError(f"config: missing key '{where}.name'")
    target = settings.lookup(registry, section["name"], f"config: {where}.name")
    section = dict(section)
    if section.get("host"):
      section["host"] = part(section["host"], registry, f"{where}.host")
    return settings.build(target, section, where, **common)

  aux_head = config.get("aux_head")
  return SegmentationModel(
      backbone=part(config["backbone"], BACKBONES, "model.backbone"),
      head=part(config["head"], HEADS, "model.head"),
      aux_head=part(aux_head, HEADS, "model.aux_head") if aux_head else None,
      align_corners=config.get("align_corners", False),
  )
