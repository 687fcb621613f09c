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

# From theirs to ours: OIHW to HWIO or (1x1) to IO, [out, in] to [in, out],
# [1, C, K] to [K, C], unchanged.
LAYOUTS = {
    "conv": lambda x: np.transpose(x, (2, 3, 1, 0)),
    "conv1x1": lambda x: np.transpose(x[:, :, 0, 0]),
    "dense": np.transpose,
    "bases": lambda x: np.transpose(x[0]),
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


def psp_head(
    bins: Iterable[int], prefix: str = "", path: tuple[str, ...] = ()
) -> list[Row]:
  """Returns the rows of PSPHead; arguments as there and in `resnet`."""
  rows = _conv_module(f"{prefix}bottleneck", (*path, "fusion"))
  for i, n in enumerate(bins):
    rows += _conv_module(
        f"{prefix}psp_modules.{i}.1", (*path, "pyramid", f"bin{n}")
    )
  return rows + _linear(
      f"{prefix}conv_seg", (*path, "classifier", "conv"), "conv"
  )


def aspp_head(
    num_rates: int,
    separable: bool,
    prefix: str = "",
    path: tuple[str, ...] = (),
) -> list[Row]:
  """Returns the rows of ASPPHead or of DepthwiseSeparableASPPHead.

  Args:
    num_rates: Number of its dilations above 1.
    separable: Whether it is DepthwiseSeparableASPPHead, with decoder.
    prefix: What their names start with.
    path: Where the head is in our tree.
  """
  aspp = (*path, "aspp")
  conv = _separable_conv_module if separable else _conv_module
  rows = _conv_module(f"{prefix}image_pool.1", (*aspp, "image_pool"))
  rows += _conv_module(f"{prefix}aspp_modules.0", (*aspp, "conv"))
  for i in range(1, num_rates + 1):
    rows += conv(f"{prefix}aspp_modules.{i}", (*aspp, f"atrous{i}"))
  rows += _conv_module(f"{prefix}bottleneck", (*aspp, "project"))
  if separable:
    rows += _conv_module(f"{prefix}c1_bottleneck", (*path, "low"))
    for i in range(2):
      rows += conv(f"{prefix}sep_bottleneck.{i}", (*path, f"decoder{i + 1}"))
  return rows + _linear(
      f"{prefix}conv_seg", (*path, "classifier", "conv"), "conv"
  )


def _separable_conv_module(theirs, ours):
  rows = _conv_module(f"{theirs}.depthwise_conv", (*ours, "depthwise"))
  return rows + _conv_module(f"{theirs}.pointwise_conv", (*ours, "pointwise"))


def nl_head(prefix: str = "", path: tuple[str, ...] = ()) -> list[Row]:
  """Returns the rows of NLHead; arguments as in `resnet`."""
  theirs, ours = f"{prefix}nl_block", (*path, "non_local")
  rows = fcn_head(2, True, prefix, path)
  for name, role in (("theta", "query"), ("phi", "key"), ("g", "value")):
    rows += _linear(f"{theirs}.{name}.conv", (*ours, role), "conv1x1")
  out = ("params", *ours, "out", "kernel")
  rows.append(Row(f"{theirs}.conv_out.conv.weight", "conv1x1", out))
  return rows + _norm(f"{theirs}.conv_out.bn", (*ours, "bn"))


def da_head(prefix: str = "", path: tuple[str, ...] = ()) -> list[Row]:
  """Returns the rows of DAHead; arguments as in `resnet`."""
  rows = _linear(f"{prefix}conv_seg", (*path, "classifier", "conv"), "conv")
  for theirs, ours in (("pam", "position"), ("cam", "channel")):
    module = (*path, f"{ours}_attention")
    rows += _conv_module(f"{prefix}{theirs}_in_conv", (*path, f"{ours}_reduce"))
    rows += _conv_module(f"{prefix}{theirs}_out_conv", (*path, f"{ours}_conv"))
    rows += _linear(
        f"{prefix}{theirs}_conv_seg",
        (*path, f"{ours}_classifier", "conv"),
        "conv",
    )
    gamma = ("params", *module, "gamma")
    rows.append(Row(f"{prefix}{theirs}.gamma.scale", "same", gamma))
  for role in ("query", "key", "value"):
    rows += _linear(
        f"{prefix}pam.{role}_project",
        (*path, "position_attention", role),
        "conv1x1",
    )
  return rows


def ema_head(prefix: str = "", path: tuple[str, ...] = ()) -> list[Row]:
  """Returns the rows of EMAHead; arguments as in `resnet`."""
  em, frozen = (*path, "em"), ("frozen", *path, "em", "pre")
  return [
      *_conv_module(f"{prefix}ema_in_conv", (*path, "reduce")),
      Row(f"{prefix}ema_module.bases", "bases", ("bases", *em, "mean")),
      Row(f"{prefix}ema_mid_conv.conv.weight", "conv1x1", (*frozen, "kernel")),
      Row(f"{prefix}ema_mid_conv.conv.bias", "same", (*frozen, "bias")),
      *_conv_module(f"{prefix}ema_out_conv", (*em, "post")),
      *_conv_module(f"{prefix}bottleneck", (*path, "conv")),
      *_conv_module(f"{prefix}conv_cat", (*path, "conv_concat")),
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
        "bases": (-1.0, 1.0),
        "scale": (-1.0, 0.0),
        "images": (-2.0, 2.0),
        "features": (-1.0, 2.0),
    }[kind]
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  return rng.uniform(low, high, size=shape).astype(np.float32)


def sharpen(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the tensors, the convolution before EM steps times 8.

  The few bases of a narrow EMAHead would otherwise reconstruct all pixels
  nearly alike, and batch norm divide float32 noise by almost nothing.
  """
  return {
      name: 8.0 * x if name == "ema_mid_conv.conv.weight" else x
      for name, x in tensors.items()
  }
