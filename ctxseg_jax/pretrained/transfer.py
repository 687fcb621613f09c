"""Carries the tensors of a file over to our variables, strictly by name."""

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import difflib
import re
from typing import Any
from typing import Literal

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import patterns
from ctxseg_jax.models import network
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources import SOURCES

# Which heads a file has to fill, beside the backbone: all that the network has,
# those and those tensors of them that fit, or none.
Heads = Literal["all", "fitting", "none"]

_NUM_LISTED = 3  # Names in a message that must stay one line.
# What to change in which part of the network.
_REMEDIES = {
    "backbone": "depth, stem, avg_down, variant",
    "head": "its fields, and the data set's number of classes",
    "aux_head": "its fields; None where the file has none",
}


@dataclasses.dataclass(frozen=True)
class Plan:
  """Which tensor of a file goes where.

  Attributes:
    names: Path of ours -> foreign name and layout.
    skipped: Foreign name -> why it is left out.
    unknown: Foreign names that have no place.
    absent: Paths of ours that are not in the file, with the foreign name that
      is missing; None if the source has none.
  """

  names: Mapping[str, tuple[str, str]]
  skipped: Mapping[str, str]
  unknown: tuple[str, ...]
  absent: Mapping[str, str | None]


def has_heads(
    source: naming.Source,
    model: network.SegmentationModel,
    template: Collection[str],
    names: Collection[str],
) -> bool:
  """Returns whether a file with these names has any tensor of our heads."""
  rules = []
  for part, head in _heads(model):
    try:
      rules += source.head_rules(part, head)
    except errors.UserError:  # It has none like the config's.
      if part == "head":
        return False
  return bool(_find(rules, template, names))


def make_plan(
    source: naming.Source,
    model: network.SegmentationModel,
    template: Collection[str],
    names: Collection[str],
    *,
    heads: Heads,
) -> Plan:
  """Decides which foreign tensor goes where, by names alone.

  `template` are our paths, `names` those of the file. Raises UserError if the
  source has nothing like the network, or the heads if it needs all.
  """
  candidates = [
      source.backbone_rules(model.backbone, p) for p in source.prefixes
  ]
  rules = max(candidates, key=lambda r: len(_find(r, template, names)))
  for part, head in _heads(model) if heads != "none" else ():
    try:
      rules = (*rules, *source.head_rules(part, head))
    except errors.UserError:
      if heads == "all":
        raise
  beside = source.beside_backbone
  if heads == "all":
    beside = () if model.aux_head else source.without_aux_head()
  found, absent = _find(rules, template, names), {}
  for path in template:
    _, part, inner = path.split("/", 2)
    wanted = heads == "all" or part == "backbone"
    if path not in found and wanted and not re.fullmatch(source.fresh, inner):
      name = naming.resolve(path, rules)
      absent[path] = name and name[0]
  used = {name for name, _ in found.values()}
  left_out = (*beside, *source.left_out)
  skipped, unknown = {}, []
  for name in (name for name in names if name not in used):
    reasons = [why for what, why in left_out if re.fullmatch(what, name)]
    if reasons:
      skipped[name] = reasons[0]
    else:
      unknown.append(name)
  return Plan(found, skipped, tuple(unknown), absent)


def _heads(model):
  """Returns the heads of a network with the names of their fields."""
  found = {"head": model.head, "aux_head": model.aux_head}
  return [(part, head) for part, head in found.items() if head is not None]


def _find(rules, template, names):
  """Returns `Plan.names`."""
  resolved = ((path, naming.resolve(path, rules)) for path in template)
  return {path: name for path, name in resolved if name and name[0] in names}


def transfer(
    tensors: Mapping[str, np.ndarray],
    source_name: str,
    model: network.SegmentationModel,
    template: Mapping[str, Any],
    *,
    heads: Heads,
    place: str,
    channel_order: str = "rgb",
    fresh: Collection[str] = (),
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Returns our variables with the values of a file.

  Args:
    tensors: Of the file, by name.
    source_name: A key of `SOURCES`.
    model: The network.
    template: Its variables by path, each with a `shape`.
    heads: What must be in the file beside the backbone. Of "fitting" heads,
      tensors of another shape are left out.
    place: The file, for messages.
    channel_order: Of the images that the weights expect; of "bgr" ones the
      input channels of the first convolution are reversed.
    fresh: Patterns of what is left out, and need not be in the file.

  Returns:
    Float32 arrays by path; and why other tensors are left out, by name.

  Raises:
    UserError: A tensor is missing, unknown, or of another shape or type.
  """
  plan = make_plan(SOURCES[source_name], model, template, tensors, heads=heads)

  def refuse(problem, path, remedy=None):
    if better := _better_sources(source_name, model, template, tensors):
      names = " or ".join(better)
      remedy = f"its names are those of {names}: choose that source"
    elif remedy is None:
      part = path.split("/")[1]
      fields = f"config.model.{part} ({_REMEDIES[part]})"
      remedy = f"set {fields} to what the file was trained with"
    raise errors.UserError(f"{place}: {problem}; {remedy}")

  def is_fresh(path):
    return patterns.matches_any(path.partition("/")[2], fresh)

  absent = {p: name for p, name in plan.absent.items() if not is_fresh(p)}
  if absent:
    plan = dataclasses.replace(plan, absent=absent)
    refuse(_describe_absent(plan, source_name), next(iter(absent)))
  arrays, skipped = {}, dict(plan.skipped)
  for path, (name, layout) in plan.names.items():
    if is_fresh(path):
      skipped[name] = "to start afresh, as init_from.fresh has it"
      continue
    tensor, shape = tensors[name], tuple(template[path].shape)
    array = naming.LAYOUTS[layout](tensor, shape)
    described = (
        f"{list(tensor.shape)}, {list(array.shape)} in our layout, for {path}"
        f" {list(shape)}"
    )
    if array.shape == shape:
      arrays[path] = _to_float32(array, name, place)
    elif heads == "all" or "/backbone/" in path:
      remedy = _class_remedy(path, shape, array.shape, model.head)
      refuse(f"tensor {name!r} has shape {described}", path, remedy)
    else:
      skipped[name] = f"of another shape: {described}"
  if plan.unknown:
    name = plan.unknown[0]
    problem = (
        f"tensor {name!r} {list(tensors[name].shape)} has no place in the"
        f" network of the config, nor have {len(plan.unknown) - 1} others"
    )
    refuse(problem, "params/backbone")
  if channel_order == "bgr":
    _reverse_channels(arrays)
  return arrays, skipped


def summarise(
    arrays: Mapping[str, np.ndarray],
    skipped: Mapping[str, str],
    template: Collection[str],
) -> str:
  """Returns what became of all tensors, a line per kind and reason.

  Variables of ours that the file does not fill stay as they are. Arguments are
  the results of `transfer` and our paths.
  """
  num_values = sum(x.size for x in arrays.values())
  copied = f"{_count_parts(arrays)}; {num_values:,} values"
  missing = [path for path in template if path not in arrays]
  rows = [("copied", len(arrays), copied)]
  for reason in dict.fromkeys(skipped.values()) or ("",):
    names = [name for name, why in skipped.items() if why == reason]
    rows.append(("skipped", len(names), f"{reason} ({_listed(names)})"))
  start = f"{_count_parts(missing)}; they keep their initial values"
  rows.append(("missing", len(missing), f"{start} ({_listed(missing)})"))
  return "\n".join(
      f"{kind:8} {n:5} tensor{'s' * (n != 1)}" + (f": {text}" if n else "")
      for kind, n, text in rows
  )


def _listed(names: list[str]) -> str:
  more = ", ..." if len(names) > _NUM_LISTED else ""
  return ", ".join(names[:_NUM_LISTED]) + more


def _count_parts(paths: Iterable[str]) -> str:
  counts = collections.Counter(path.split("/")[1] for path in paths)
  return ", ".join(f"{p} {counts[p]}" for p in _REMEDIES if p in counts)


def _to_float32(array, name, place):
  # The half-precision types that NumPy lacks are of kind "V".
  if array.dtype.kind not in "fV":
    raise errors.UserError(
        f"{place}: tensor {name!r} holds {array.dtype}, expected floating"
        " point numbers; quantised weights have to be exported as float32"
    )
  return np.asarray(array, np.float32, order="C")


def _reverse_channels(arrays):
  """Reverses the input channels of the kernel that reads the image."""
  (first,) = (
      path
      for path, array in arrays.items()
      if "/backbone/" in path and array.ndim == 4 and array.shape[2] == 3
  )
  arrays[first] = np.ascontiguousarray(arrays[first][:, :, ::-1])


def _describe_absent(plan, source_name):
  path, name = next(iter(plan.absent.items()))
  if name is None:
    return f"{source_name} has nothing for {path} of the config's network"
  near = difflib.get_close_matches(name, plan.unknown, n=1)
  return (
      f"no tensor {name!r}, expected for {path}, nor"
      f" {len(plan.absent) - 1} others; found"
      f" {repr(near[0]) if near else 'nothing like it'}"
  )


def _class_remedy(path, ours, theirs, head):
  """Returns the remedy if the shapes differ in the number of classes alone."""
  num_classes = getattr(head, "num_classes", None)
  is_of_classes = "/backbone/" not in path and ours[-1:] == (num_classes,)
  if not is_of_classes or ours[:-1] != theirs[:-1]:
    return None
  return (
      f"the file has {theirs[-1]} classes, the config's data set {num_classes}:"
      " choose a data set (config.data) with the file's number of classes"
  )


def _better_sources(chosen, model, template, names):
  """Returns the sources that know most names, if the chosen one knows fewer."""
  num_unknown = {}
  for name, source in SOURCES.items():
    try:
      plan = make_plan(source, model, template, names, heads="none")
    except errors.UserError:  # It has no such backbone.
      continue
    num_unknown[name] = len(plan.unknown)
  fewest = min(num_unknown.values())
  if num_unknown[chosen] == fewest:
    return []
  return [name for name, unknown in num_unknown.items() if unknown == fewest]
