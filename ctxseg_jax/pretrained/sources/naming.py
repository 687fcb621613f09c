"""How a source names what we have: rules from our paths to its tensors.

A path of ours is `<collection>/<part>/<modules>/<tensor>`, for instance
`params/backbone/stage1_block1/conv1/conv/kernel`. The rules give each of them
one foreign name or none. In the table of a source they see what follows the
part: "backbone", "head" or "aux_head".
"""

from collections.abc import Callable
from collections.abc import Mapping
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

# The names that configs have for our modules.
_NAMES = {cls: name for name, cls in {**BACKBONES, **HEADS}.items()}


def _linear(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Turns [out, in, ...] into [..., in, out].

  A dense layer may be a convolution here (the first of VGG16's, whose input
  was a flattened map) and a 1x1 convolution a dense layer.
  """
  if x.ndim < 2:  # Of another shape than any of ours.
    return x
  flattened = x.ndim == 2 and len(shape) == 4 and x.size == np.prod(shape)
  if flattened and x.shape[0] == shape[-1]:
    height, width, channels, _ = shape
    x = x.reshape(-1, channels, height, width)
  if x.ndim > len(shape) == 2 and set(x.shape[2:]) == {1}:
    x = x.reshape(x.shape[:2])
  return np.transpose(x, (*range(2, x.ndim), 1, 0))


def _mean_last(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """As `_linear`; of the concatenated inputs, our first one is their last."""
  x = _linear(x, shape)
  return np.roll(x, shape[-1], axis=-2) if x.ndim > 1 else x


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

# What the dilated networks of most sources do.
DILATED = {"align_corners": False, "backbone.dilation": "contracted"}

# Regular expressions for names, each with the reason why they have no place.
LeftOut = tuple[tuple[str, str], ...]


class Rule(NamedTuple):
  """The foreign name of modules, or of single tensors.

  Attributes:
    ours: Regular expression for a path: a module's, whose tensors are then
      called as PyTorch calls them, or a tensor's.
    theirs: The name: a template as of `re.sub`, where `<1>` is the number that
      the first group matches less one, as others count from 0. None: the path.
    layout: A key of `LAYOUTS`; None goes by the tensor.
  """

  ours: str
  theirs: str | None
  layout: str | None = None


Rules = tuple[Rule, ...]  # The first that fits a path counts.

# The rules of modules, or what makes them of a module, by config name.
Table = Mapping[str, Rules | Callable[[Any], Rules]]


class Source(NamedTuple):
  """A project whose files we read.

  Attributes:
    backbones: The rules of backbones. Of this and the next two, None stands for
      any module, whose names are our paths.
    heads: The rules of heads.
    aux_heads: The rules of auxiliary heads.
    starts: The rules of the heads that a backbone's file starts, by backbone.
    prefixes: What the names of a backbone may start with.
    head_prefix: What the names of the head start with.
    aux_prefix: What the names of the auxiliary head start with.
    left_out: What any file may hold beside.
    beside_backbone: What may be beside a backbone when it alone is wanted.
    fresh: Regular expression for paths of a backbone that no file fills.
    conventions: Returns the fields of a network, dotted, that leave its
      parameters alone but change what the backbone computes, with the values
      that the published weights were trained with.
    whole_conventions: Such fields of whole networks.
    package: Returns the name of the Python package, not of ours, that has the
      published weights of a backbone; None if there are none.
    recognise: Returns the section `model` of the config that names and shapes
      of a file tell, and its number of classes: None without a head of ours.
      Of a file with no backbone of ours the section is None. See `shapes`.
    normalisation: Mean and deviation of the images; None is unknown.
  """

  backbones: Table | None
  heads: Table | None = {}
  aux_heads: Table | None = {}
  starts: Mapping[str, Rules] = {}
  prefixes: tuple[str, ...] = ("",)
  head_prefix: str = ""
  aux_prefix: str = ""
  left_out: LeftOut = (COUNTERS,)
  beside_backbone: LeftOut = ()
  fresh: str = "(?!)"
  conventions: Callable[[Any], dict[str, Any]] = lambda _: RESNET
  whole_conventions: Mapping[str, Any] = DILATED
  package: Callable[[nn.Module], str] | None = None
  recognise: Callable[[Any], tuple[dict[str, Any] | None, int | None]] = (
      lambda _: (None, None)
  )
  normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = (
      IMAGENET_MEAN,
      IMAGENET_STD,
  )

  def backbone_rules(self, backbone: nn.Module, prefix: str) -> Rules:
    """Returns the rules for what a file of a pretrained backbone fills.

    Raises:
      UserError: The source has no such backbone.
    """
    started = self.starts.get(_NAMES.get(type(backbone)), ())
    return (
        *_select(self.backbones, "backbone", prefix, backbone),
        *_place(started, "head", prefix),
    )

  def head_rules(self, part: str, head: nn.Module) -> Rules:
    """Returns the rules for the "head" or the "aux_head" of a network.

    Raises:
      UserError: The source has no such head.
    """
    if part == "head":
      return _select(self.heads, part, self.head_prefix, head)
    return _select(self.aux_heads, part, self.aux_prefix, head)

  def without_aux_head(self) -> LeftOut:
    """Returns what a network without an auxiliary head leaves out."""
    start = re.escape(self.aux_prefix)
    if self.aux_heads is None:
      start = r"\w+/aux_head/"
    return ((f"{start}.*", "the config has no auxiliary head"),)


def _select(table, part, prefix, module):
  if table is None:
    return (Rule(f"{part}/.*", None),)
  name = _NAMES.get(type(module), type(module).__name__)
  if name not in table:
    raise errors.UserError(
        f"config: model.{part}: this source has no {name!r}; it has"
        f" {', '.join(sorted(table))}"
    )
  rules = table[name]
  return _place(rules(module) if callable(rules) else rules, part, prefix)


def _place(rules, part, prefix):
  return tuple(
      Rule(f"{part}/{rule.ours}", prefix + rule.theirs, rule.layout)
      for rule in rules
  )


def resolve(path: str, rules: Rules) -> tuple[str, str] | None:
  """Returns the foreign name and the layout of a path; None if it has none."""
  inner = path.partition("/")[2]
  module, _, leaf = inner.rpartition("/")
  for rule in rules:
    if match := re.fullmatch(rule.ours, inner):
      name = path if rule.theirs is None else _expand(rule.theirs, match)
      return name, rule.layout or "same"
    if match := re.fullmatch(rule.ours, module):
      name = f"{_expand(rule.theirs, match)}.{_LEAVES[leaf]}"
      layout = rule.layout or "linear"
      return name, layout if leaf == "kernel" else "same"
  return None


def _expand(template, match):
  template = re.sub(
      r"<(\d)>", lambda m: str(int(match[int(m[1])]) - 1), template
  )
  return match.expand(template)


def conv_norm(ours: str, conv: str, norm: str) -> tuple[Rule, Rule]:
  """Returns the rules of a `ConvBNAct`."""
  return Rule(f"{ours}/conv", conv), Rule(f"{ours}/bn", norm)


def resnet_rules(
    backbone: resnet.ResNet, stem: str = "conv1", stem_norm: str = "bn1"
) -> tuple[Rule, ...]:
  """Returns the names of torchvision's ResNet and of all that descends from it.

  Averages before the projection of a block have no parameters, but move what
  follows them from `downsample.0` to 1.

  Args:
    backbone: The ResNet.
    stem: The name of a stem of three convolutions, which are numbered with the
      batch norms and activations between them.
    stem_norm: The name of the last batch norm of such a stem.
  """
  ours, theirs = r"stage(\d)_block(\d+)", r"layer\1.<2>"
  project = f"{theirs}.downsample.{int(backbone.avg_down)}"
  norm = f"{theirs}.downsample.{int(backbone.avg_down) + 1}"
  blocks = (
      *conv_norm(rf"{ours}/conv(\d)", rf"{theirs}.conv\3", rf"{theirs}.bn\3"),
      *conv_norm(f"{ours}/shortcut", project, norm),
  )
  if backbone.stem == "7x7":
    return (*conv_norm("stem_conv1", "conv1", "bn1"), *blocks)
  return (
      *conv_norm("stem_conv1", f"{stem}.0", f"{stem}.1"),
      *conv_norm("stem_conv2", f"{stem}.3", f"{stem}.4"),
      *conv_norm("stem_conv3", f"{stem}.6", stem_norm),
      *blocks,
  )
