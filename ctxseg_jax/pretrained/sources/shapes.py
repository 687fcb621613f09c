"""What the names and shapes of a file's tensors tell of its network.

A source's `recognise` returns the section `model` of a config that these
describe; what they leave open keeps its default.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from ctxseg_jax.models.backbones import resnet

Shapes = Mapping[str, tuple[int, ...]]
Section = dict[str, Any]


def under(shapes: Shapes, prefix: str) -> Shapes:
  """Returns what has a prefix, without it."""
  return {
      name.removeprefix(prefix): shape
      for name, shape in shapes.items()
      if name.startswith(prefix)
  }


def count(shapes: Shapes, name: str) -> int:
  """Returns how many modules a list of this name has."""
  return len({x.split(".")[0] for x in under(shapes, f"{name}.")})


def backbone(shapes: Shapes, prefixes: Iterable[str]) -> Shapes:
  """Returns the tensors of a ResNet; none if there is none."""
  candidates = (under(shapes, prefix) for prefix in prefixes)
  return next((x for x in candidates if "layer1.0.conv1.weight" in x), {})


def resnet_section(shapes: Shapes, stem: str = "conv1") -> Section | None:
  """Returns the section of a ResNet; None if it is none of ours.

  `shapes` are those of `backbone`, `stem` is as in `naming.resnet_rules`.
  """
  sizes = tuple(count(shapes, f"layer{i}") for i in range(1, 5))
  is_deep = "layer1.0.conv3.weight" in shapes
  depths = [
      depth
      for depth, x in resnet.STAGE_SIZES.items()
      if x == sizes and is_deep == (depth >= 50)
  ]
  if not depths:
    return None
  widths = [shapes[x][:1] for x in _stem(stem) if x in shapes]
  stems = [x for x, w in resnet.STEMS.items() if [(n,) for n in w] == widths]
  if len(stems) != 1:
    return None
  # An average before the projection moves it on by one.
  projection = shapes.get("layer2.0.downsample.1.weight", ())
  return dict(
      name="resnet",
      depth=depths[0],
      stem=stems[0],
      avg_down=len(projection) == 4,
  )


def network_section(
    resnet_shapes: Shapes,
    stem: str,
    head: Section | None,
    aux_head: Section | None,
    **fields: Any,
) -> Section | None:
  """Returns the section of a network; None if its backbone is none of ours.

  Without a head it is that of the backbone, with one that is never used.
  """
  section = resnet_section(resnet_shapes, stem) if resnet_shapes else None
  if section is None:
    return None
  found = dict(backbone=section, head=head or dict(name="fcn"), **fields)
  return found | (dict(aux_head=aux_head) if head and aux_head else {})


def _stem(stem):
  return ("conv1.weight", *(f"{stem}.{i}.weight" for i in (0, 3, 6)))


def stage(shapes: Shapes, channels: int) -> str | None:
  """Returns the stage of a ResNet that has so many channels."""
  last = 3 if "layer1.0.conv3.weight" in shapes else 2
  for i in range(1, 5):
    if shapes.get(f"layer{i}.0.conv{last}.weight", ())[:1] == (channels,):
      return f"stage{i}"
  return None
