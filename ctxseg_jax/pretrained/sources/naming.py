"""How a source names what we have: rules from our paths to its tensors.

A path of ours is `<collection>/<part>/<modules>/<tensor>`, for instance
`params/backbone/stage1_block1/conv1/conv/kernel`. The rules of a part see what
follows the part. So a source is a short table, whatever the depth of a
network, and every path of a network has one foreign name or none.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.models.backbones import BACKBONES
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.models.heads import HEADS

# Means and deviations of the images that the published weights were trained
# on, RGB, 0 to 255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# What PyTorch calls the tensors of a module.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

COUNTERS = (r".*num_batches_tracked", "counters of batch norms")
IMAGENET_CLASSIFIER = "the classifier of the pretraining"
NO_AUX_HEAD = "the config has no auxiliary head"

# The names that configs have for our modules.
_NAMES = {cls: name for name, cls in {**BACKBONES, **HEADS}.items()}


def _linear(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Turns [out, in, ...] into [..., in, out].

  A dense layer may be a convolution here (the first of VGG16's, whose input
  was a flattened map) and a 1x1 convolution a dense layer.
  """
  flattened = x.ndim == 2 and len(shape) == 4 and x.size == np.prod(shape)
  if flattened and x.shape[0] == shape[-1]:
    height, width, channels, _ = shape
    x = x.reshape(-1, channels, height, width)
  if x.ndim > len(shape) == 2 and set(x.shape[2:]) == {1}:
    x = x.reshape(x.shape[:2])
  return np.transpose(x, (*range(2, x.ndim), 1, 0))


def _mean_last(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """As `_linear`; of the concatenated inputs, our first one is their last."""
  return np.roll(_linear(x, shape), shape[-1], axis=-2)


def _bases(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Turns [1, C, K] into [K, C]."""
  del shape
  return np.transpose(x[0]) if x.ndim == 3 and len(x) == 1 else x


def _same(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  return x.reshape(()) if shape == () and x.size == 1 else x


# From theirs to ours, given our shape.
LAYOUTS = {
    "bases": _bases,
    "linear": _linear,
    "mean_last": _mean_last,
    "same": _same,
}

# Fields of our ResNet as all sources have them.
RESNET = {"backbone.stride_in_1x1": False, "backbone.ceil_pool": False}

# What a source's dilated networks do.
DILATED = {"align_corners": False, "backbone.dilation": "contracted"}

_empty = functools.partial(dataclasses.field, default_factory=dict)

# Regular expressions for names, each with what they are.
LeftOut = tuple[tuple[str, str], ...]


class Rule(NamedTuple):
  """The foreign name of modules, or of single tensors.

  Attributes:
    ours: Regular expression for a path below its part: a module's, whose
      tensors are then called as PyTorch calls them, or a tensor's.
    theirs: The name: a template as of `re.sub`, where `<1>` is the number that
      the first group matches less one, as others count from 0.
    layout: A key of `LAYOUTS`; None goes by the tensor.
  """

  ours: str
  theirs: str
  layout: str | None = None


class Part(NamedTuple):
  """The rules of one part of the network.

  Attributes:
    ours: Its name here: "backbone", "head", "aux_head".
    theirs: What its names start with in the source.
    rules: The first that fits a path counts. None: names are our paths.
  """

  ours: str
  theirs: str
  rules: tuple[Rule, ...] | None


Parts = tuple[Part, ...]

# The rules of a module, by the name that configs have for it; None for any
# module, whose names are our paths.
Table = Mapping[str, tuple[Rule, ...] | Callable[[Any], tuple[Rule, ...]]]


@dataclasses.dataclass(frozen=True)
class Source:
  """A project whose files we read.

  Attributes:
    backbones: The rules of backbones.
    starts: The rules of the head's modules that a backbone's file fills, by
      the backbone.
    heads: The rules of heads; empty if the source has backbones only.
    aux_heads: The rules of auxiliary heads.
    prefixes: What the names of a backbone may start with.
    head_prefix: What those of the head start with.
    aux_prefix: Likewise of the auxiliary head.
    aux_names: Regular expression for the names of the auxiliary head.
    switched: Fields of the head that leave modules out when they are False:
      a regular expression for the names after the prefix, and the reason.
    left_out: What any file may hold beside, each a regular expression for
      names and what it is.
    beside_backbone: What may be beside a backbone when it alone is wanted,
      likewise.
    fresh: Regular expression for paths of a backbone that no file fills.
    conventions: The network -> fields of it, dotted, that leave the parameters
      alone but change what the backbone computes, with the value that the
      published weights were trained with.
    whole_conventions: Likewise, of the whole networks.
    mean: What images are normalised by, RGB, 0 to 255; None is unknown.
    std: Likewise.
  """

  backbones: Table | None
  starts: Mapping[str, tuple[Rule, ...]] = _empty()
  heads: Table | None = _empty()
  aux_heads: Table | None = _empty()
  prefixes: tuple[str, ...] = ("",)
  head_prefix: str = ""
  aux_prefix: str = ""
  aux_names: str = "(?!)"
  switched: Mapping[str, tuple[str, str]] = _empty()
  left_out: LeftOut = (COUNTERS,)
  beside_backbone: LeftOut = ()
  fresh: str = "(?!)"
  conventions: Callable[[Any], dict[str, Any]] = lambda _: RESNET
  whole_conventions: Mapping[str, Any] = _empty()
  mean: tuple[float, ...] | None = IMAGENET_MEAN
  std: tuple[float, ...] | None = IMAGENET_STD

  def backbone_parts(self, backbone: nn.Module, prefix: str) -> Parts:
    """Returns the parts that a file of a pretrained backbone fills.

    Raises:
      UserError: The source has no such backbone.
    """
    parts = (_part("backbone", prefix, self.backbones, backbone),)
    started = self.starts.get(_NAMES.get(type(backbone)))
    return (*parts, Part("head", prefix, started)) if started else parts

  def head_parts(
      self, head: nn.Module, aux_head: nn.Module | None
  ) -> tuple[Parts, LeftOut]:
    """Returns the other parts of a whole network, and what may be left out.

    That is what the fields of the heads make superfluous.

    Raises:
      UserError: The source has no such heads.
    """
    parts = (_part("head", self.head_prefix, self.heads, head),)
    left_out = tuple(
        (re.escape(self.head_prefix) + names, reason)
        for field, (names, reason) in self.switched.items()
        if not getattr(head, field, True)
    )
    if aux_head is None:
      return parts, (*left_out, (self.aux_names, NO_AUX_HEAD))
    aux = _part("aux_head", self.aux_prefix, self.aux_heads, aux_head)
    return (*parts, aux), left_out


def _part(ours, theirs, table, module):
  if table is None:
    return Part(ours, theirs, None)
  name = _NAMES.get(type(module), type(module).__name__)
  if name not in table:
    raise errors.UserError(
        f"config: model.{ours}: this source has no {name!r}; it has"
        f" {', '.join(sorted(table))}"
    )
  rules = table[name]
  return Part(ours, theirs, rules(module) if callable(rules) else rules)


def resolve(path: str, parts: Parts) -> tuple[str, str] | None:
  """Returns the foreign name and the layout of a path; None if it has none."""
  _, part_name, inner = path.split("/", 2)
  module, _, leaf = inner.rpartition("/")
  for part in parts:
    if part.ours != part_name:
      continue
    if part.rules is None:
      return path, "same"
    for rule in part.rules:
      if match := re.fullmatch(rule.ours, inner):
        return part.theirs + _expand(rule, match), rule.layout or "same"
      if match := re.fullmatch(rule.ours, module):
        name = f"{part.theirs}{_expand(rule, match)}.{_LEAVES[leaf]}"
        layout = rule.layout or "linear"
        return name, layout if leaf == "kernel" else "same"
  return None


def _expand(rule, match):
  theirs = re.sub(
      r"<(\d)>", lambda m: str(int(match[int(m[1])]) - 1), rule.theirs
  )
  return match.expand(theirs)


def conv_norm(ours: str, conv: str, norm: str) -> tuple[Rule, Rule]:
  """Returns the rules of a `ConvBNAct`."""
  return Rule(f"{ours}/conv", conv), Rule(f"{ours}/bn", norm)


def resnet_blocks(backbone: resnet.ResNet) -> tuple[Rule, ...]:
  """Returns the names of the blocks of torchvision's ResNet.

  All that descends from it has them: `layer1.0.conv1`, `layer1.0.bn1`,
  `layer1.0.downsample.0`; averages before the projection, which have no
  parameters, move what follows them to 1 and 2.
  """
  ours, theirs = r"stage(\d)_block(\d+)", r"layer\1.<2>"
  project = f"{theirs}.downsample.{int(backbone.avg_down)}"
  norm = f"{theirs}.downsample.{int(backbone.avg_down) + 1}"
  return (
      *conv_norm(rf"{ours}/conv(\d)", rf"{theirs}.conv\3", rf"{theirs}.bn\3"),
      *conv_norm(f"{ours}/shortcut", project, norm),
  )


def sequential_resnet(backbone: resnet.ResNet) -> tuple[Rule, ...]:
  """Returns the names of a ResNet whose stem ends with `bn1`.

  A single convolution is `conv1`. Of three, all but that batch norm are
  numbered with the activations between them: `conv1.0`, `conv1.1`, `conv1.3`.
  """
  blocks = resnet_blocks(backbone)
  if backbone.stem == "7x7":
    return (*conv_norm("stem_conv1", "conv1", "bn1"), *blocks)
  return (
      *conv_norm("stem_conv1", "conv1.0", "conv1.1"),
      *conv_norm("stem_conv2", "conv1.3", "conv1.4"),
      *conv_norm("stem_conv3", "conv1.6", "bn1"),
      *blocks,
  )
