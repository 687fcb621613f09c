"""mmsegmentation's names for our parameters, and tensors made from names.

Needs numpy only: the maker of the golden files imports it beside PyTorch, the
tests beside JAX. Tests import it as `mmseg_names`: pytest puts the folder of a
test file without `__init__.py` at the front of `sys.path`.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
import zlib

import numpy as np

STAGE_SIZES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}

# From theirs to ours: OIHW to HWIO, [out, in] to [in, out], unchanged.
LAYOUTS = {
    "conv": lambda x: np.transpose(x, (2, 3, 1, 0)),
    "dense": np.transpose,
    "same": lambda x: x,
}


class Row(NamedTuple):
  """One tensor: its mmsegmentation name, its layout, its path in our tree."""

  theirs: str
  layout: str
  ours: tuple[str, ...]


def _norm(theirs, ours):
  return [
      Row(f"{theirs}.weight", "same", ("params", *ours, "scale")),
      Row(f"{theirs}.bias", "same", ("params", *ours, "bias")),
      Row(f"{theirs}.running_mean", "same", ("batch_stats", *ours, "mean")),
      Row(f"{theirs}.running_var", "same", ("batch_stats", *ours, "var")),
  ]


def _linear(theirs, ours, layout):
  return [
      Row(f"{theirs}.weight", layout, ("params", *ours, "kernel")),
      Row(f"{theirs}.bias", "same", ("params", *ours, "bias")),
  ]


def _conv_norm(conv, norm, ours):
  kernel = Row(f"{conv}.weight", "conv", ("params", *ours, "conv", "kernel"))
  return [kernel, *_norm(norm, (*ours, "bn"))]


def _conv_module(theirs, ours):
  return _conv_norm(f"{theirs}.conv", f"{theirs}.bn", ours)


def resnet(
    depth: int, stem: str, prefix: str = "", path: tuple[str, ...] = ()
) -> list[Row]:
  """Returns the rows of ResNet (stem "7x7") or ResNetV1c (deep stems).

  Args:
    depth: 18, 50 or 101.
    stem: As in our `ResNet`.
    prefix: What their names start with.
    path: Where the backbone is in our tree.
  """
  rows = []
  if stem == "7x7":
    rows += _conv_norm(f"{prefix}conv1", f"{prefix}bn1", (*path, "stem_conv1"))
  else:
    for i in range(3):
      rows += _conv_norm(
          f"{prefix}stem.{3 * i}",
          f"{prefix}stem.{3 * i + 1}",
          (*path, f"stem_conv{i + 1}"),
      )
  for stage, size in enumerate(STAGE_SIZES[depth], start=1):
    for i in range(size):
      theirs = f"{prefix}layer{stage}.{i}"
      ours = (*path, f"stage{stage}_block{i + 1}")
      for k in range(1, 3 if depth < 50 else 4):
        rows += _conv_norm(
            f"{theirs}.conv{k}", f"{theirs}.bn{k}", (*ours, f"conv{k}")
        )
      # Basic blocks keep the 64 channels of all stems but this one.
      if i == 0 and (stage > 1 or depth >= 50 or stem == "deep64"):
        rows += _conv_norm(
            f"{theirs}.downsample.0",
            f"{theirs}.downsample.1",
            (*ours, "shortcut"),
        )
  return rows


def fcn_head(
    num_convs: int,
    concat_input: bool,
    prefix: str = "",
    path: tuple[str, ...] = (),
) -> list[Row]:
  """Returns the rows of FCNHead; arguments as there and in `resnet`."""
  rows = []
  for i in range(num_convs):
    rows += _conv_module(f"{prefix}convs.{i}", (*path, f"conv{i + 1}"))
  if concat_input:
    rows += _conv_module(f"{prefix}conv_cat", (*path, "conv_concat"))
  return rows + _linear(
      f"{prefix}conv_seg", (*path, "classifier", "conv"), "conv"
  )


def enc_head(
    lateral: bool, prefix: str = "", path: tuple[str, ...] = ()
) -> list[Row]:
  """Returns the rows of EncHead with SE-loss; arguments as in `resnet`."""
  rows = _conv_module(f"{prefix}bottleneck", (*path, "reduce"))
  if lateral:
    for i, stage in enumerate(("stage2", "stage3")):
      rows += _conv_module(
          f"{prefix}lateral_convs.{i}", (*path, f"lateral_{stage}")
      )
    rows += _conv_module(f"{prefix}fusion", (*path, "fusion"))
  module = f"{prefix}enc_module"
  encoding = (*path, "encoding")
  return [
      *rows,
      *_conv_module(f"{module}.encoding_project", (*encoding, "project")),
      *_norm(f"{module}.encoding.1", (*encoding, "bn")),
      *[
          Row(f"{module}.encoding.0.{x}", "same", ("params", *encoding, x))
          for x in ("codewords", "scale")
      ],
      *_linear(f"{module}.fc.0", (*path, "gate"), "dense"),
      *_linear(f"{prefix}se_layer", (*path, "se"), "dense"),
      *_linear(f"{prefix}conv_seg", (*path, "classifier", "conv"), "conv"),
  ]


def convert(
    tensors: Mapping[str, np.ndarray],
    rows: Iterable[Row],
    template: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns their tensors as a tree of ours.

  Args:
    tensors: By their names.
    rows: Every name and every path exactly once.
    template: A tree of the expected result; leaves have a `shape`. Give
      `{"params": ...}` and only rows of parameters to convert gradients.

  Raises:
    ValueError: Anything missing, left over, twice, or of another shape.
  """
  rows = list(rows)
  for side, names, expected in (
      ("mmsegmentation", [row.theirs for row in rows], set(tensors)),
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
    x = LAYOUTS[row.layout](tensors[row.theirs])
    node, leaf = tree, template
    for part in row.ours[:-1]:
      node, leaf = node.setdefault(part, {}), leaf[part]
    if x.shape != leaf[row.ours[-1]].shape:
      raise ValueError(
          f"{row.theirs} has shape {x.shape} in our layout,"
          f" {'/'.join(row.ours)} {leaf[row.ours[-1]].shape}"
      )
    node[row.ours[-1]] = np.ascontiguousarray(x)
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


def make_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Makes the values of a weight, a statistic or an input from its name.

  Both sides of a comparison call this, so that golden files need no weights.
  `RandomState` is the generator whose numbers numpy promises never to change.
  Convolutions keep the scale of rectified inputs (He, fan-in); the ranges of
  batch norm keep activations and their growth over 33 blocks moderate, with
  no statistic near its initial 0 or 1.

  Args:
    name: A name of their state dict, or of an input; ranges go by its end.
    shape: In their layout.
  """
  kind = name.rpartition(".")[2]
  if len(shape) > 1 and kind == "weight":
    limit = (6.0 / np.prod(shape[1:])) ** 0.5
    low, high = -limit, limit
  else:
    low, high = {
        "weight": (0.5, 1.5),
        "bias": (-0.5, 0.5),
        "running_mean": (-0.5, 0.5),
        "running_var": (1.0, 4.0),
        "codewords": (-1.0, 1.0),
        "scale": (-1.0, 0.0),
        "images": (-2.0, 2.0),
        "features": (-1.0, 2.0),
    }[kind]
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  return rng.uniform(low, high, size=shape).astype(np.float32)
