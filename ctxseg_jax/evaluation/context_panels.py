"""What is worth seeing of what a context head computed, head by head.

Heads expose arrays [B, ...] (`models.layers.expose`); of those of one image
each function here makes panels.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Literal

import flax.linen as nn
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import schema
from ctxseg_jax.models.heads import HEADS

_MOST = 4  # Maps of codewords, bases, descriptors and factors.
_LEAST_SHARE = 0.005  # Of an image, for a map of its own.
_ALIKE = 0.95  # Cosine between maps that are taken for one.
_GATES = 8  # Of the largest and of the smallest.


@dataclasses.dataclass(frozen=True)
class Panel:
  """One part of the picture of an explanation.

  Attributes:
    title: What it shows.
    values: A "map" [h, w] from 0 on; "signed", a map around 0; "distance", a
      map in which 0 is most; "parts", integers [h, w], those below 0 of no
      part; "colors", RGB from 0 to 1 [h, w, 3]; of "classes" a probability
      each, [C]; of "bars" one each, [n].
    kind: Which of these.
    labels: What the bars, or the parts, are called.
  """

  title: str
  values: np.ndarray
  kind: Literal[
      "map", "signed", "distance", "parts", "colors", "classes", "bars"
  ] = "map"
  labels: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Seen:
  """What a head computed for one image.

  Attributes:
    head: The head.
    arrays: What it exposed, and its outputs that are vectors, by module and
      name, such as `"encoding/assignments"`; without the axis of the batch.
    place: (y, x) of the chosen point, as fractions of height and width.
    class_names: Names of the classes.
  """

  head: nn.Module
  arrays: Mapping[str, np.ndarray]
  place: tuple[float, float]
  class_names: Sequence[str]

  def __getitem__(self, name: str) -> np.ndarray:
    return self.arrays[name]

  def at(self, name: str) -> np.ndarray:
    """Returns what a map [h, w, ...] has where the point is."""
    cell = (
        min(int(x * n), n - 1)
        for x, n in zip(self.place, self[name].shape, strict=False)
    )
    return self[name][tuple(cell)]

  def inside(self, module: str) -> "Seen":
    """Returns what a module of the head computed."""
    arrays = {
        name.removeprefix(f"{module}/"): x
        for name, x in self.arrays.items()
        if name.startswith(f"{module}/")
    }
    return dataclasses.replace(self, arrays=arrays)


def _added(seen, branch=""):
  """How far a block changes its input, position by position, from 0 to 1."""
  added, before = (
      np.linalg.norm(seen[name], axis=-1) for name in ("added", "before")
  )
  share = added / np.maximum(added + before, 1e-12)
  title = f"{branch}share of context in the features, mean {share.mean():.0%}"
  return Panel(title, share)


def _attention(seen):
  """Paper: the softmax over all positions of the products with a query."""
  logits = seen["keys"] @ seen.at("queries")
  weights = np.exp(logits - logits.max())
  return _spread("attention of the point", weights / weights.sum())


def _spread(title, weights):
  """Says of weights over how many positions they are spread."""
  shares = weights / weights.sum()
  number = _effective(shares)
  return Panel(
      f"{title} (over about {number:.0f} of {weights.size} positions)", weights
  )


def _effective(shares):
  """Returns exp(entropy): 1 if one has all, n if n have equal shares."""
  shares = shares[shares > 0]
  return float(np.exp(-np.sum(shares * np.log(shares))))


def _assigned(seen, name, noun):
  """Soft assignments of pixels, [h, w, K]: the likeliest, the most used.

  What is assigned the same pixels counts as one.
  """
  weights = seen[name]
  groups = _alike(weights)
  sums = np.stack([weights[..., group].sum(axis=-1) for group in groups], -1)
  shares = sums.mean(axis=(0, 1))
  order = np.argsort(-shares)
  rank = np.argsort(order)[sums.argmax(axis=-1)]
  names = []
  for i in order:
    first, *others = groups[i]
    names.append(f"{first} (+{len(others)} alike)" if others else f"{first}")
  title = (
      f"{noun} of each pixel (about {_effective(shares):.1f} different of"
      f" {weights.shape[-1]} in use)"
  )
  panels = [Panel(title, rank, "parts", names[: rank.max() + 1])]
  for i, label in list(zip(order, names, strict=True))[:_MOST]:
    if shares[i] >= _LEAST_SHARE or i == order[0]:
      panels.append(Panel(f"{noun} {label}: {shares[i]:.0%}", sums[..., i]))
  return panels


def _alike(weights):
  """Groups the last axis by maps that are alike, the most used ones first."""
  maps = weights.reshape(-1, weights.shape[-1])
  maps = maps / np.maximum(np.linalg.norm(maps, axis=0), 1e-30)
  similarity = maps.T @ maps
  left = list(np.argsort(-weights.mean(axis=(0, 1))))
  groups = []
  while left:
    groups.append(
        [i for i in left if i == left[0] or similarity[i, left[0]] > _ALIKE]
    )
    left = [i for i in left if i not in groups[-1]]
  return groups


def _gates(seen):
  gates = seen["gates"]
  order = np.argsort(-gates)
  if len(order) > 2 * _GATES:
    order = np.concatenate([order[:_GATES], order[-_GATES:]])
  title = f"largest and smallest of {len(gates)} gates"
  return Panel(title, gates[order], "bars", [f"channel {i}" for i in order])


def _presence(seen, name):
  if name not in seen.arrays:
    return []
  probabilities = 0.5 + 0.5 * np.tanh(0.5 * seen[name])  # The sigmoid.
  return [Panel("predicted presence of classes", probabilities, "classes")]


def _strongest(title, seen, name):
  """The map of the channel that is largest at the point."""
  channel = int(seen.at(name).argmax())
  return Panel(f"{title}, channel {channel}", seen[name][..., channel])


def _encnet(seen):
  encoding = seen.inside("encoding")
  return [
      *_presence(seen, "se_logits"),
      _gates(seen),
      *_assigned(encoding, "assignments", "codeword"),
  ]


def _fcn_se(seen):
  return [_gates(seen)]


def _sanet(seen):
  # Paper: Figure 6, for heads 1 and 4.
  panels = []
  for i in (1, 4):
    stage = seen.inside(f"stage{i}_attention")
    gap = stage["attention"] - stage.at("attention")
    distance = np.linalg.norm(gap, axis=-1)
    panels += [
        Panel(
            f"head {i}: attention, distance to the point", distance, "distance"
        ),
        _strongest(f"head {i}: main path", stage, "main"),
        _strongest(f"head {i}: output", stage, "output"),
    ]
  return panels + _presence(seen, "category_logits")


def _emanet(seen):
  em = seen.inside("em")
  return [*_assigned(em, "responsibilities", "base"), _added(em)]


def _mfnet(seen):
  maps = seen["spatial_factors"]
  size = np.linalg.norm(maps, axis=(1, 2))
  size = size * np.linalg.norm(seen["channel_factors"], axis=0)
  panels = []
  for i in np.argsort(-size)[:_MOST]:
    title = f"factor {i}, the same for every image"
    panels.append(Panel(title, maps[i], "signed"))
  # There is no sum where the factors are decoded alone.
  return panels + ([_added(seen)] if "added" in seen.arrays else [])


def _nonlocal(seen):
  block = seen.inside("non_local")
  return [_attention(block), _added(block)]


def _danet(seen):
  position = seen.inside("position_attention")
  channel = seen.inside("channel_attention")
  strongest = int(channel.at("before").argmax())
  panels = [_attention(position), _added(position, "position attention: ")]
  for name, title in (("before", "before"), ("added", "what is added to it")):
    values = channel[name][..., strongest]
    title = f"channel attention, channel {strongest}: {title}"
    panels.append(Panel(title, values, "signed"))
  return [*panels, _added(channel, "channel attention: ")]


def _double_attention(seen):
  block = seen.inside("double_attention")
  gather, weights = block["gather_weights"], block.at("distribute_weights")
  panels = [_spread("attention of the point", gather @ weights)]
  for i in np.argsort(-weights)[:_MOST]:
    title = f"gathered by descriptor {i}, weight {weights[i]:.2g}"
    panels.append(Panel(title, gather[..., i]))
  return [*panels, _added(block)]


def _pspnet(seen):
  """Colours the bins of all grids by three main directions of features."""
  grids = {n: seen[f"pyramid/pooled{n}"] for n in seen.head.bins}
  bins = np.concatenate([x.reshape(-1, x.shape[-1]) for x in grids.values()])
  mean = bins.mean(axis=0)
  *_, directions = np.linalg.svd(bins - mean, full_matrices=False)
  colors = (bins - mean) @ directions[:3].T
  low, high = colors.min(axis=0), colors.max(axis=0)
  panels = []
  for n, x in grids.items():
    values = ((x - mean) @ directions[:3].T - low) / np.maximum(
        high - low, 1e-12
    )
    title = f"{n}x{n} bins; like colours, like features"
    panels.append(Panel(title, values, "colors"))
  return panels


def _sca(seen):
  dependencies = seen["dependencies"]
  size = np.abs(dependencies)
  panels = [Panel("dependency on context, mean", size.mean(axis=-1))]
  for i in np.argsort(-size.mean(axis=(0, 1)))[:_MOST]:
    name = f"channel {i}"
    if seen.head.reading != "features":
      name = seen.class_names[i]
    title = f"dependency of {name}"
    panels.append(Panel(title, dependencies[..., i], "signed"))
  panels.append(_added(seen))
  host = dataclasses.replace(seen.inside("host"), head=seen.head.host)
  name = schema.name_of(HEADS, host.head)
  return panels + (_PANELS[name](host) if name in _PANELS else [])


# By the name of the head in `HEADS`.
_PANELS: dict[str, Callable[[Seen], list[Panel]]] = {
    "danet": _danet,
    "double_attention": _double_attention,
    "emanet": _emanet,
    "encnet": _encnet,
    "fcn_se": _fcn_se,
    "mfnet": _mfnet,
    "nonlocal": _nonlocal,
    "pspnet": _pspnet,
    "sanet": _sanet,
    "sca": _sca,
}


def check(head: nn.Module) -> str:
  """Returns the name of a head, or refuses one that has nothing to show.

  Raises:
    UserError: It has no context.
  """
  name = schema.name_of(HEADS, head)
  if name not in _PANELS:
    raise errors.UserError(
        f"--explain: the head {name!r} has no context to show; those that have:"
        f" {', '.join(_PANELS)}"
    )
  return name


def make(seen: Seen) -> list[Panel]:
  """Returns the panels of what a head computed for an image."""
  return _PANELS[check(seen.head)](seen)
