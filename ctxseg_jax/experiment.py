"""From a config, or a finished work dir, to the typed values it describes.

Nothing below this module looks at a key of a config again.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import ml_collections
import numpy as np
import optax

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import losses
from ctxseg_jax import schema
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import options as options_lib
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.evaluation.tasks import TASKS
from ctxseg_jax.models import network
from ctxseg_jax.pretrained import loading
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import loop
from ctxseg_jax.training import optim
from ctxseg_jax.training import run as run_lib
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import workdir as workdir_lib
from ctxseg_jax.training.checkpoint import arrays

Config = Mapping[str, Any] | ml_collections.ConfigDict

_SECTIONS = ("data", "model", "loss", "optim", "eval", "init_from")

# Fields of the parts of a network that are not their own options.
_SHARED = ("num_classes", *schema.options(network.Common))
# Fields that follow from others.
_FROM_DATA = ("pad_color", "ignore_label")
_OWN_DATA = ("root", "spec")
_SCHEDULES = {"schedule": optim.SCHEDULES}


def train_and_evaluate(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    allow_config_change: bool = False,
) -> step_lib.TrainState:
  """Trains as a config says; see `training.loop.train_and_evaluate`."""
  return loop.train_and_evaluate(
      parse(config), workdir, allow_config_change=allow_config_change
  )


def parse(config: Config) -> run_lib.Run:
  """Returns the run that a config describes, with every value checked.

  `run.config` is complete: it has every option of the parts that the config
  chooses, and the classes of a user's own dataset, so that neither a later
  change of a default nor of the dataset's folder changes it.

  Args:
    config: One experiment; see `configs/`. Values may be `schema.Text`.

  Raises:
    UserError: An unknown or missing key, a value of another type or out of
      bounds, values that do not fit together, or a faulty folder of own data.
  """
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  schema.check_keys(config, config, "")
  top = _pick(config, config.keys() - set(_SECTIONS))
  done = schema.complete([run_lib.RunOptions], top, "")
  section = {name: config.get(name) or {} for name in _SECTIONS}

  done["data"], spec = complete_data(section["data"])
  task = TASKS[spec.task]
  done["model"] = complete_model(section["model"])
  done["loss"] = complete_terms(section["loss"])
  done["optim"] = complete_optimizer(section["optim"])
  done["eval"] = schema.complete(
      [task.settings, run_lib.EvalOptions],
      section["eval"],
      "eval",
      given=() if task.protocols else ("protocol",),
  )
  if task.protocols:
    wanted = done["eval"]["protocol"] or task.protocols[0]
    known = dict.fromkeys(task.protocols)
    schema.lookup(known, wanted, "config: eval.protocol")
    done["eval"]["protocol"] = wanted
  done["init_from"] = schema.complete(
      [loading.InitFrom], section["init_from"], "init_from"
  )

  init_from = schema.build(loading.InitFrom, done["init_from"], "init_from")
  return schema.build(
      run_lib.Run,
      done,
      "the config",
      given=dict(
          config=done,
          data=schema.build(options_lib.DataOptions, done["data"], "data"),
          spec=spec,
          augmentation=build_augmentation(done["data"], spec),
          model=build_model(
              done["model"], spec.num_classes, bn_axis_name=step_lib.AXIS
          ),
          terms=build_terms(done["loss"]),
          optimizer=build_optimizer(done["optim"]),
          settings=schema.build(task.settings, done["eval"], "eval"),
          protocol=done["eval"].get("protocol"),
          num_pictures=done["eval"]["num_pictures"],
          init_from=init_from if init_from.path else None,
      ),
  )


def _pick(section, keys):
  """Returns what a section has of some keys, in its order."""
  return {key: value for key, value in section.items() if key in keys}


def complete_data(
    section: Mapping[str, Any],
) -> tuple[dict[str, Any], spec_lib.DatasetSpec]:
  """Returns the complete section `data`, and the data set that it names.

  Raises:
    UserError: As `parse`.
  """
  schema.check_keys(section, section, "data")
  mine = _pick(section, schema.options(options_lib.DataOptions))
  own = schema.complete([options_lib.DataOptions], mine, "data")
  is_own = own["name"] == custom.NAME
  spec = datasets.open_spec(own["name"], own["root"], own["spec"])
  done = schema.complete(
      [options_lib.DataOptions, TASKS[spec.task].augmentation],
      section,
      "data",
      given=_FROM_DATA if is_own else (*_FROM_DATA, *_OWN_DATA),
  )
  if is_own:
    done["root"] = os.path.abspath(os.path.expanduser(done["root"]))
    done["spec"] = custom.to_record(spec)
  return done, spec


def build_augmentation(
    section: Mapping[str, Any], spec: spec_lib.DatasetSpec
) -> Any:
  """Returns what is done to training examples, of a complete section."""
  return schema.build(
      TASKS[spec.task].augmentation,
      section,
      "data",
      given=dict(
          pad_color=tuple(section["mean"]), ignore_label=spec.ignore_label
      ),
  )


def complete_model(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the complete section `model`.

  Raises:
    UserError: As `parse`.
  """
  schema.check_keys(section, section, "model")
  shared = _pick(section, schema.options(network.Common))
  common = schema.complete(
      [network.Common], shared, "model", given=("axis_name",)
  )
  return common | schema.complete(
      [network.SegmentationModel],
      _pick(section, section.keys() - shared.keys()),
      "model",
      given=_SHARED,
      parts=network.PARTS,
  )


def build_model(
    section: Mapping[str, Any],
    num_classes: int,
    *,
    bn_axis_name: str | None = None,
) -> network.SegmentationModel:
  """Returns the network that the section `model` of a config describes.

  Args:
    section: `backbone`, `head` and perhaps `aux_head`, each a `name` and its
      fields; fields of `network.SegmentationModel` and `network.Common`.
    num_classes: Number of classes of the data set.
    bn_axis_name: Mesh axis over which batch norms are reduced; None outside
      `shard_map`.

  Raises:
    UserError: As `parse`.
  """
  section = complete_model(section)
  common = schema.build(
      network.Common, section, "model", given=dict(axis_name=bn_axis_name)
  )
  return schema.build(
      network.SegmentationModel,
      section,
      "model",
      given=dict(
          num_classes=num_classes,
          norm=common.norm,
          align_corners=common.align_corners,
          dtype=getattr(jnp, common.dtype),
      ),
      parts=network.PARTS,
  )


def complete_optimizer(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the complete section `optim`; without a name it is SGD.

  Raises:
    UserError: As `parse`.
  """
  schema.check_keys(section, section, "optim")
  return schema.complete_part(
      {"name": "sgd", **section}, optim.OPTIMIZERS, "optim", parts=_SCHEDULES
  )


def build_optimizer(section: Mapping[str, Any]) -> optim.Optimizer:
  """Returns the optimiser that the section `optim` of a config describes.

  Raises:
    UserError: As `parse`.
  """
  section = complete_optimizer(section)
  target = optim.OPTIMIZERS[section["name"]]
  return schema.build(target, section, "optim", parts=_SCHEDULES)


def complete_terms(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the complete section `loss`; a term that is None is left out.

  Raises:
    UserError: As `parse`.
  """
  schema.check_keys(section, section, "loss")
  done = {
      name: _complete_term(name, term)
      for name, term in section.items()
      if term not in (None, "None")
  }
  if not done:
    raise errors.UserError(
        "config: loss: no terms; expected at least one, such as"
        " dict(ce=dict(output='logits', loss='softmax_cross_entropy'))"
    )
  return done


def _complete_term(name, section):
  where = f"loss.{name}"
  schema.check_keys(section, section, where)
  if "loss" not in section:
    raise errors.UserError(
        f"config: missing key '{where}.loss'; known losses:"
        f" {', '.join(sorted(losses.LOSSES))}"
    )
  loss = schema.lookup(losses.LOSSES, section["loss"], f"config: {where}.loss")
  given = ["loss", "ignore_label"]
  if section["loss"] not in losses.PIXEL_LOSSES:
    given.append("denominator")
  targets = [losses.Term, loss]
  options = {"output": name} | schema.own_options(section, "loss", targets)
  return {"loss": str(section["loss"])} | schema.complete(
      targets, options, where, given=given
  )


def build_terms(section: Mapping[str, Any]) -> dict[str, losses.Term]:
  """Returns the terms that the section `loss` of a config describes, by name.

  Raises:
    UserError: As `parse`.
  """
  terms = {}
  for name, term in complete_terms(section).items():
    where = f"loss.{name}"
    loss = schema.build(losses.LOSSES[term["loss"]], term, where)
    terms[name] = schema.build(losses.Term, term, where, given=dict(loss=loss))
  return terms


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained network and what it takes to use it.

  Attributes:
    run: The parsed config it was trained with.
    mesh: All devices.
    variables: Its variables, replicated over the mesh.
    step: The training step they are from.
    workdir: Where they are from.
  """

  run: run_lib.Run
  mesh: jax.sharding.Mesh
  variables: dict[str, Any]
  step: int
  workdir: pathlib.Path

  @functools.cached_property
  def scores(self) -> dict[str, Any]:
    """The report of the step as in `eval/<step>.json`; empty without one."""
    reports = workdir_lib.Workdir(self.workdir).read_evaluations()
    return next((x for x in reports if x["step"] == self.step), {})

  @property
  def config(self) -> dict[str, Any]:
    return self.run.config

  @property
  def spec(self) -> spec_lib.DatasetSpec:
    return self.run.spec

  @property
  def model(self) -> network.SegmentationModel:
    return self.run.model

  @property
  def task(self) -> tasks.Task:
    return TASKS[self.run.spec.task]

  def predict(
      self, images: Sequence[np.ndarray], *, probabilities: bool = False
  ) -> list[np.ndarray]:
    """Predicts images as evaluations of the run do.

    Args:
      images: RGB, uint8 [H, W, 3] each, of any sizes.
      probabilities: Whether to return class probabilities instead of classes.

    Returns:
      For each image classes, uint8 [H, W] (uint16 from 256 classes on), or
      probabilities, float32 [H, W, C]. Networks that classify whole images
      return [] and [C].

    Raises:
      ValueError: Something else than such images.
    """
    return self._predictor.predict(
        self.variables, images, probabilities=probabilities
    )

  @functools.cached_property
  def _predictor(self) -> batching.Predictor:
    return self.predictor()  # Keeps its compiled programs.

  def predictor(
      self, settings: tasks.Settings | None = None
  ) -> batching.Predictor:
    """Returns a predictor of the network.

    Args:
      settings: How predictions are made; None is as in the config.
    """
    return self.run.predictor(self.mesh, settings)


def load(workdir: str | os.PathLike[str], which: str = "best") -> Trained:
  """Loads a trained network from a work dir.

  Args:
    workdir: A work dir of `train.py`.
    which: "best" (the highest score so far), "last", or a step that is kept.

  Raises:
    UserError: No work dir, no such checkpoint, or it is damaged.
  """
  path = files.local_path(workdir, "--workdir")
  run = parse(workdir_lib.read_config(path))
  if which == "best":
    state, step = checkpoint.load(path / "best")
  elif which == "last":
    state, step = checkpoint.load(path / "checkpoints")
  elif which.isdecimal():
    state, step = checkpoint.load(path / "checkpoints", step=int(which))
  else:
    raise errors.UserError(
        f"--checkpoint: expected 'best', 'last' or a step, got {which!r}"
    )
  # Empty collections and an average that is None leave no trace on disk.
  variables = {
      "params": state.get("average") or state["params"],
      **state.get("model_state", {}),
  }
  _check_network(run, variables, path)
  mesh = step_lib.make_mesh()
  variables = jax.device_put(variables, NamedSharding(mesh, P()))
  return Trained(run, mesh, variables, int(step), path)


def _check_network(run, variables, path):
  """Refuses variables of another network than the config describes."""
  expected = jax.eval_shape(
      lambda: run.init_state(optax.identity(), jax.random.key(0)).variables
  )
  found, expected = map(arrays.describe, (variables, expected))
  names = sorted(found.keys() | expected.keys())
  differing = [x for x in names if found.get(x) != expected.get(x)]
  if differing:
    raise errors.UserError(
        f"{files.printable(path)}: config.json describes another network than"
        f" the checkpoint holds: {len(differing)} of {len(names)} arrays"
        f" differ, such as {differing[0]}; restore config.json as the run"
        " wrote it"
    )
