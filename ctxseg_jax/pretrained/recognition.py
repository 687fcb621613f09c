"""The config of a network of which there is a file of weights alone.

Names and shapes tell the network but for a few fields, such as dilations. These
are as the config in the file says, if it has one, or else as the networks that
the source publishes; `lines` say which.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any
from typing import NamedTuple

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import schema
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import custom
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.models.heads import HEADS
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained import mmseg_config
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources import SOURCES

# Fields of heads that change what a network computes, but none of its shapes.
_UNTOLD = {
    "deeplabv3": ("rates",),
    "deeplabv3plus": ("rates",),
    "emanet": ("num_iters",),
    "fcn": ("dilation",),
    "pspnet": ("bins",),
}

# By number of classes, if there are no names; of 21 the first.
_DATASETS = (
    *("voc2012", "cityscapes", "ade20k", "pcontext59", "pcontext60"),
    *("coco_stuff164k", "camvid"),
)

_CROP_SIZES = {"mmseg": (512, 512)}
_CROP_SIZE = (480, 480)


class Recognised(NamedTuple):
  """What a file is of.

  Attributes:
    config: The config; its recipe of training is a plain one.
    weights: The file, with the order of channels that its config tells.
    lines: What was recognised and what by, for the user.
  """

  config: dict[str, Any]
  weights: loading.InitFrom
  lines: list[str]


def recognise(
    weights: loading.InitFrom, contents: loading.Contents
) -> Recognised:
  """Returns the config of the network that a file is of.

  Raises:
    UserError: It is of none that its source is known to have.
  """
  (tensors, metadata), source = contents, SOURCES[weights.source]
  place = files.printable(weights.path)
  model, num_classes = _by_shapes(source, tensors)
  if model is None:
    others = [name for name, x in SOURCES.items() if _by_shapes(x, tensors)[0]]
    remedy = "pass --config"
    if others:
      remedy = f"its names are those of {' or '.join(others)}: choose that"
    raise errors.UserError(
        f"{place}: no network of {weights.source} that is known by its names"
        f" and shapes; {remedy}"
    )
  try:
    told = mmseg_config.settings(metadata.get("mmseg_config", ""))
  except ValueError as error:
    raise errors.UserError(
        f"{place}: the config in it is not usable ({error}); pass --config"
    ) from error
  lines = []
  if num_classes is not None:
    lines = _settle(model, source, weights.source, told)
  data, line = _data(num_classes or 2, metadata.get("class_names"))
  if num_classes is not None:
    lines += [line, f"model = {model!r}"]
  if told.get("channel_order") == "bgr":
    weights = dataclasses.replace(weights, channel_order="bgr")
  crop_size = told.get("crop_size", ())
  if len(crop_size) != 2:
    crop_size = _CROP_SIZES.get(weights.source, _CROP_SIZE)
  config = dict(
      batch_size=16,
      total_steps=40_000,
      data=data | dict(crop_size=crop_size),
      model=model,
      loss=_loss(model),
      optim=dict(learning_rate=0.01, weight_decay=5e-4),
      eval=told.get("eval", {}),
  )
  return Recognised(config, weights, lines)


def _by_shapes(source, tensors):
  shapes = {name: tuple(x.shape) for name, x in tensors.items()}
  try:
    return source.recognise(shapes)
  except (LookupError, TypeError, ArithmeticError):  # Shapes can be any.
    return None, None


def _settle(
    model: dict[str, Any],
    source: naming.Source,
    source_name: str,
    told: Mapping[str, Any],
) -> list[str]:
  """Completes a section by what no tensor shows; returns what it is from."""
  head = model["head"]["name"]
  options = schema.options(resnet.ResNet), schema.options(HEADS[head])
  values = {
      "backbone.output_stride": options[0]["output_stride"].default,
      **source.whole_conventions,
      **{f"head.{x}": options[1][x].default for x in _UNTOLD.get(head, ())},
  }
  lines = []
  for origin, keys in (
      ("by the config in the file", [k for k in values if k in told]),
      (f"as {source_name} publishes", [k for k in values if k not in told]),
  ):
    for key in keys:
      values[key] = told.get(key, values[key])
      part, _, name = key.rpartition(".")
      (model[part] if part else model)[name] = values[key]
    if keys:
      listed = ", ".join(f"{key}={values[key]!r}" for key in keys)
      lines.append(f"{origin}: {listed}")
  return lines


def _data(num_classes: int, text: str | None) -> tuple[dict[str, Any], str]:
  """Returns the section `data` without a crop, and what was taken for it."""
  names = json.loads(text) if text else ()
  found = _published(num_classes, names)
  data = dict(
      name=found or custom.NAME,
      data_dir="data",
      train_split="train",
      eval_split="val",
      mean=naming.IMAGENET_MEAN,
      std=naming.IMAGENET_STD,
  )
  if found:
    by = "their names" if names else "their number"
    return data, f"{num_classes} classes: those of {found}, by {by}"
  if len(names) != num_classes:
    names = [f"class {i}" for i in range(num_classes)]
  palette = tuple(map(classes_lib.voc_color, range(num_classes)))
  classes = classes_lib.Classes(tuple(names), palette, {})
  try:
    spec = custom.make_spec(classes, name="converted")
  except ValueError as error:
    raise errors.UserError(
        f"--config: missing; the {num_classes} classes of the file make no data"
        f" set ({error})"
    ) from error
  line = f"{num_classes} classes of no known data set: {', '.join(names)}"
  return data | dict(root="", spec=custom.to_record(spec)), line


def _published(num_classes: int, names: Sequence[str]) -> str | None:

  def plain(names):
    return ["".join(filter(str.isalnum, x)).lower() for x in names]

  for name in _DATASETS:
    known = DATASETS[name].class_names
    if len(known) != num_classes:
      continue
    if len(names) != num_classes or plain(names) == plain(known):
      return name
  return None


def _loss(model: Mapping[str, Any]) -> dict[str, Any]:
  def term(output, weight=1.0, loss="softmax_cross_entropy"):
    return dict(output=output, loss=loss, weight=weight)

  terms = dict(ce=term("logits"))
  if model["head"].get("se_loss"):
    terms["se"] = term("se_logits", 0.2, "presence_bce")
  if "aux_head" in model:
    terms["aux"] = term("aux_logits", 0.4)
  return terms
