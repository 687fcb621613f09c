"""From a config, or a finished work dir, to the objects it describes."""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import settings
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.models import network
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import workdir as workdir_lib

_KEYS = ("seed", "batch_size", "total_steps", "data", "model", "loss", "optim")
_PERIODS = ("log_every", "checkpoint_every", "eval_every", "max_to_keep")
_DATA_KEYS = ("name", "data_dir", "train_split", "eval_split", "mean", "std")
_OWN_DATA_KEYS = ("root", "spec")  # Of a user's own dataset alone.

# A resume may change these: they move no number of the training.
FREE_KEYS = (
    *("data.data_dir", "data.root", "data.num_workers", "eval"),
    *_PERIODS,
)


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config with what it refers to written down in it.

  These are the classes of a user's own dataset, which are in its folder. The
  work dir keeps the resolved config, so that its network can be used without.

  Raises:
    UserError: The folder is missing or faulty.
  """
  if not isinstance(config.get("data"), Mapping):
    return dict(config)  # `check` says what is wrong with it.
  return {**config, "data": datasets.resolve(config["data"])}


def check(config: Mapping[str, Any]) -> None:
  """Refuses keys that nothing reads, before anything is built.

  Raises:
    UserError: Names the key and the nearest known one.
  """
  settings.check_keys(
      config, (*_PERIODS, "eval", "init_from", "switches"), "", required=_KEYS
  )
  chosen = task(config)
  own = _OWN_DATA_KEYS if config["data"]["name"] == custom.NAME else ()
  settings.check_keys(
      config["data"],
      (*_data_keys(chosen), *own, "num_workers"),
      "data",
      required=_DATA_KEYS,
  )
  settings.check_keys(
      config.get("eval", {}),
      (
          *(field.name for field in dataclasses.fields(chosen.settings)),
          *(("protocol",) if chosen.protocols else ()),
          "num_pictures",
      ),
      "eval",
  )
  for key in ("batch_size", "total_steps", *_PERIODS):
    value = config.get(key, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise errors.UserError(
          f"config: {key}: expected a positive integer, got {value!r}"
      )
  for key, value in _numbers(config).items():
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      raise errors.UserError(f"config: {key}: expected a number, got {value!r}")
  protocol(config)  # Refuses an unknown one.
  for key in ("mean", "std"):
    value = config["data"][key]
    if len(value) != 3 or (key == "std" and min(value) <= 0):
      raise errors.UserError(
          f"config: data.{key}: expected three numbers, one per RGB channel"
          f" (0 to 255{', above 0' if key == 'std' else ''}), got {value!r}"
      )


def _numbers(config):
  """Returns the numbers that only compiled code would look at, by key."""
  optimizer = config["optim"]
  numbers = {
      f"optim.{key}": optimizer[key]
      for key in ("learning_rate", "momentum", "weight_decay")
      if key in optimizer
  }
  for part, value in optimizer.get("lr_multipliers", {}).items():
    numbers[f"optim.lr_multipliers.{part}"] = value
  for output, term in config["loss"].items():
    numbers[f"loss.{output}.weight"] = term.get("weight", 1.0)
    numbers[f"loss.{output}.start_step"] = term.get("start_step", 0)
  for name, step in config.get("switches", {}).items():
    numbers[f"switches.{name}"] = step
  return numbers


def _data_keys(chosen: tasks.Task) -> list[str]:
  """Returns the keys of the section `data` that the augmentation has."""
  return [
      field.name
      for field in dataclasses.fields(chosen.augmentation)
      if field.name not in ("pad_color", "ignore_label")
  ]


def dataset(config: Mapping[str, Any]) -> spec_lib.DatasetSpec:
  """Returns the specification of the config's data set."""
  return datasets.from_config(config["data"])


def task(config: Mapping[str, Any]) -> tasks.Task:
  """Returns the task of the config's data set."""
  return tasks.TASKS[dataset(config).task]


def protocol(config: Mapping[str, Any]) -> str | None:
  """Returns by which rule the config wants to be scored; None if by the one."""
  known = task(config).protocols
  if not known:
    return None
  name = config.get("eval", {}).get("protocol", known[0])
  return settings.lookup(
      dict(zip(known, known, strict=True)), name, "config: eval.protocol"
  )


def augmentation(
    config: Mapping[str, Any], spec: spec_lib.DatasetSpec
) -> transforms.Augmentation | transforms.PaddedCrop:
  """Returns what is done to each training example."""
  data = config["data"]
  chosen = tasks.TASKS[spec.task]
  return settings.build(
      chosen.augmentation,
      {key: data[key] for key in _data_keys(chosen) if key in data},
      "data",
      pad_color=tuple(data["mean"]),
      ignore_label=spec.ignore_label,
  )


def build_model(
    config: Mapping[str, Any], spec: spec_lib.DatasetSpec
) -> network.SegmentationModel:
  """Returns the network, its batch norms reduced over the mesh."""
  return network.build(
      config["model"], spec.num_classes, bn_axis_name=step_lib.AXIS
  )


def make_mesh() -> jax.sharding.Mesh:
  """Returns the mesh of all devices of all processes, with one axis."""
  return jax.sharding.Mesh(np.array(jax.devices()), (step_lib.AXIS,))


def inference_settings(
    config: Mapping[str, Any], **changes: Any
) -> tasks.Settings:
  """Returns how the config wants predictions to be made.

  Args:
    config: The config.
    **changes: Fields of the task's settings to use instead.
  """
  target = task(config).settings
  fields = {field.name for field in dataclasses.fields(target)}
  section = {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in config.get("eval", {}).items()
      if key in fields
  }
  return settings.build(target, section | changes, "eval")


def build_predictor(
    config: Mapping[str, Any],
    model: network.SegmentationModel,
    mesh: jax.sharding.Mesh,
    how: tasks.Settings,
) -> batching.Predictor:
  """Returns the predictor of a model with the config's normalisation."""
  data = config["data"]
  return task(config).make_predictor(
      model,
      mesh,
      mean=data["mean"],
      std=data["std"],
      settings=how,
      crop_size=data["crop_size"],
  )


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained network and what it takes to use it.

  Attributes:
    config: The resolved config, plain dicts.
    spec: The data set it was trained on.
    mesh: All devices.
    model: The network.
    variables: Its variables, replicated over the mesh.
    step: The training step they are from.
  """

  config: dict[str, Any]
  spec: spec_lib.DatasetSpec
  mesh: jax.sharding.Mesh
  model: network.SegmentationModel
  variables: Any
  step: int

  @property
  def task(self) -> tasks.Task:
    return tasks.TASKS[self.spec.task]

  def predictor(self, how: tasks.Settings) -> batching.Predictor:
    """Returns a predictor of the network."""
    return build_predictor(self.config, self.model, self.mesh, how)


def load(workdir: str | os.PathLike[str], which: str = "best") -> Trained:
  """Loads a trained network from a work dir.

  Args:
    workdir: A work dir of `train.py`.
    which: "best" (the highest score so far), "last", or a step that is kept.

  Raises:
    UserError: No work dir, no such checkpoint, or it is damaged.
  """
  path = files.local_path(workdir, "--workdir")
  config = workdir_lib.read_config(path)
  check(config)
  spec = dataset(config)
  mesh = make_mesh()
  model = build_model(config, spec)
  if which == "best":
    state, _, step = checkpoint.load(path / "best")
  elif which == "last":
    state, _, step = checkpoint.load(path / "checkpoints")
  elif which.isdigit():
    state, _, step = checkpoint.load(path / "checkpoints", step=int(which))
  else:
    raise errors.UserError(
        f"--checkpoint: expected 'best', 'last' or a step, got {which!r}"
    )
  # A network without batch norm has no state beside its parameters.
  variables = {"params": state["params"], **state.get("model_state", {})}
  variables = jax.device_put(variables, NamedSharding(mesh, P()))
  return Trained(config, spec, mesh, model, variables, int(step))
