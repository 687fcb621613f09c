"""Reads a file of weights into the variables of a config's network."""

from collections.abc import Mapping
import dataclasses
import difflib
import json
import operator
import os
from typing import Any
from typing import get_args
from typing import Literal
from typing import NamedTuple

import flax
import jax

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.models import network
from ctxseg_jax.pretrained import transfer
from ctxseg_jax.pretrained.formats import weight_files
from ctxseg_jax.pretrained.sources import SOURCES
from ctxseg_jax.training import step as step_lib

ChannelOrder = Literal["rgb", "bgr"]
CHANNEL_ORDERS: tuple[str, ...] = get_args(ChannelOrder)

# The normalisation of the networks that Caffe trained, and BGR belongs to.
_CAFFE_STD = (1.0, 1.0, 1.0)


class Normalisation(NamedTuple):
  """What images are normalised by before a network sees them.

  Attributes:
    mean: Of each channel, RGB, 0 to 255.
    std: Standard deviation of each channel, above 0.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def metadata(self) -> dict[str, str]:
    """Returns what a file of our own has of it in its metadata."""
    return {key: json.dumps(x) for key, x in self._asdict().items()}


@dataclasses.dataclass(frozen=True)
class InitFrom:
  """The file of weights that the backbone of a new run starts from.

  Attributes:
    source: The project whose names the file has, a key of `SOURCES`; empty
      with an empty path.
    path: The file of weights, .pth or .safetensors; empty starts at random
      values.
    channel_order: Order of the image channels that the weights expect.

  Raises:
    ValueError: An unknown source or order of channels, or one of source and
      path without the other.
  """

  source: str = ""
  path: str = ""
  channel_order: ChannelOrder = "rgb"

  def __post_init__(self):
    if self.source and not self.path:
      raise ValueError(
          f"path: missing, for weights of {self.source}; name the file, or"
          " leave out the source"
      )
    if self.path and self.source not in SOURCES:
      near = difflib.get_close_matches(self.source, SOURCES, n=1)
      raise ValueError(
          f"source: unknown name {self.source!r}"
          f"{f', did you mean {near[0]!r}?' if near else ''};"
          f" known: {', '.join(sorted(SOURCES))}"
      )
    if self.channel_order not in CHANNEL_ORDERS:
      raise ValueError(
          f"channel_order: unknown name {self.channel_order!r}; known:"
          f" {', '.join(sorted(CHANNEL_ORDERS))}"
      )

  def __bool__(self) -> bool:
    """Returns whether there is a file to start from."""
    return bool(self.path)


def flatten(state: step_lib.TrainState) -> dict[str, Any]:
  """Returns the variables of a state by path, `params/backbone/...`."""
  variables = {"params": state.params, **state.model_state}
  return flax.traverse_util.flatten_dict(variables, sep="/")


def with_variables(
    state: step_lib.TrainState, flat: Mapping[str, Any]
) -> step_lib.TrainState:
  """Returns the state with all of its variables replaced."""
  variables = flax.traverse_util.unflatten_dict(flat, sep="/")
  params = variables.pop("params")
  return state.replace(params=params, model_state=variables)


def load(
    model: network.SegmentationModel,
    state: step_lib.TrainState,
    *,
    source: str,
    path: str | os.PathLike[str],
    channel_order: ChannelOrder = "rgb",
    whole: bool | None = False,
) -> tuple[dict[str, Any], transfer.Summary, bool]:
  """Reads what a file has for a network.

  Args:
    model: The network.
    state: Its variables, or their shapes.
    source: Whose names the file has, a key of `SOURCES`.
    path: The file.
    channel_order: Of the images that the weights expect.
    whole: All of the network or, the default, its backbone; None is what the
      file has.

  Returns:
    Arrays by path, what became of every tensor, and whether the file has the
    whole network.

  Raises:
    UserError: The file is not usable, or not for this network.
  """
  tensors = weight_files.read_tensors(path)
  template = flatten(state)
  if whole is None:
    whole = transfer.has_heads(SOURCES[source], model, template, tensors)
  arrays, summary = transfer.transfer(
      tensors,
      source,
      model,
      template,
      whole=whole,
      place=str(path),
      channel_order=channel_order,
  )
  return arrays, summary, whole


def normalisation(
    source: str, path: str | os.PathLike[str], channel_order: ChannelOrder
) -> Normalisation | None:
  """Returns what images the weights of a file expect; None if unknown.

  Args:
    source: Whose names the file has, a key of `SOURCES`.
    path: The file; read for our own source alone.
    channel_order: Of the images that the weights expect.

  Raises:
    UserError: The metadata of one of our own files is damaged.
  """
  project = SOURCES[source]
  if project.mean is not None:
    std = _CAFFE_STD if channel_order == "bgr" else project.std
    return Normalisation(project.mean, std)
  metadata = weight_files.read_metadata(path)
  if not {"mean", "std"} <= set(metadata):
    return None
  try:
    return Normalisation(
        *(tuple(map(float, json.loads(metadata[k]))) for k in ("mean", "std"))
    )
  except (TypeError, ValueError, RecursionError) as error:
    raise errors.UserError(
        f"{files.printable(path)}: the mean and std in its metadata are no"
        f" numbers ({error}); expected three each. Export it again."
    ) from error


def differences(
    source: str, model: network.SegmentationModel, whole: bool
) -> list[str]:
  """Returns what about the network is not as the weights were trained.

  Only what no tensor tells: a wrong depth is an error, a wrong dilation gives
  wrong numbers.
  """
  project = SOURCES[source]
  expected = project.conventions(model)
  if whole:
    expected |= project.whole_conventions
  lines = []
  for key, value in expected.items():
    try:
      found = operator.attrgetter(key)(model)
    except AttributeError:  # Of another backbone.
      continue
    if found != value:
      lines.append(
          f"model.{key} is {found!r}, the weights of {source} were trained"
          f" with {value!r}"
      )
  return lines


def put(
    state: step_lib.TrainState, arrays: Mapping[str, Any]
) -> step_lib.TrainState:
  """Returns a state with some of its variables replaced, where they were."""
  flat = flatten(state)
  placed = {
      path: jax.device_put(array, flat[path].sharding)
      for path, array in arrays.items()
  }
  return with_variables(state, flat | placed)
