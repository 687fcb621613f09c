"""Tensors of other projects in our trees, by the rules of `pretrained`.

What the command takes for whole networks and files, for single modules and for
gradients, of which there are none for statistics.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from ctxseg_jax.models.backbones import BACKBONES
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources import SOURCES


class Row(NamedTuple):
  """One tensor: its foreign name, its layout, its path in our tree."""

  theirs: str
  layout: str
  ours: tuple[str, ...]


def rows(
    module: nn.Module, template: Mapping[str, Any], source: str = "mmseg"
) -> list[Row]:
  """Returns the rows of a backbone or a head on its own.

  `template` are its variables, `source` is whose names they get.
  """
  project = SOURCES[source]
  if type(module) in BACKBONES.values():
    part, rules = "backbone", project.backbone_rules(module, "")
  else:
    part = "head"
    rules = project._replace(head_prefix="").head_rules("head", module)
  found = []
  for collection, *path in _paths(template):
    theirs, layout = naming.resolve("/".join((collection, part, *path)), rules)
    found.append(Row(theirs, layout, (collection, *path)))
  return found


def network_rows(
    module: nn.Module, template: Mapping[str, Any], source: str = "mmseg"
) -> list[Row]:
  """Returns the rows of a whole network."""
  project = SOURCES[source]
  rules = (
      *project.backbone_rules(module.backbone, "backbone."),
      *project.head_rules("head", module.head),
      *project.head_rules("aux_head", module.aux_head),
  )
  return [
      Row(*naming.resolve("/".join(path), rules), path)
      for path in _paths(template)
  ]


def convert(
    tensors: Mapping[str, np.ndarray],
    rows: Iterable[Row],
    template: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns their tensors as a tree of ours, whose leaves have a `shape`.

  Anything missing, left over, twice, or of another shape is a ValueError. Give
  `{"params": ...}` and only rows of parameters to convert gradients.
  """
  rows = list(rows)
  for side, names, expected in (
      ("theirs", [row.theirs for row in rows], set(tensors)),
      ("ours", [row.ours for row in rows], set(_paths(template))),
  ):
    if len(set(names)) != len(names):
      raise ValueError(f"{side}: a name occurs twice in the table")
    if set(names) != expected:
      raise ValueError(
          f"{side}: missing {sorted(set(names) - expected)[:5]},"
          f" unused {sorted(expected - set(names))[:5]}"
      )
  tree = {}
  for row in rows:
    node, leaf = tree, template
    for part in row.ours[:-1]:
      node, leaf = node.setdefault(part, {}), leaf[part]
    shape = leaf[row.ours[-1]].shape
    x = naming.LAYOUTS[row.layout](tensors[row.theirs], shape)
    if x.shape != shape:
      raise ValueError(
          f"{row.theirs} has shape {x.shape} in our layout,"
          f" {'/'.join(row.ours)} {shape}"
      )
    node[row.ours[-1]] = np.array(x, order="C")
  return tree


def _paths(tree, path=()):
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from _paths(value, (*path, name))
    else:
      yield (*path, name)


def parameters(rows: Iterable[Row]) -> list[Row]:
  """Returns the rows that have a gradient."""
  return [row for row in rows if row.ours[0] == "params"]
