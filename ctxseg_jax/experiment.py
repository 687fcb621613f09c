"""From a config, or a finished work dir, to the typed values it describes.

Nothing below this module looks at a key of a config again.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib
from typing import Any

from absl import flags
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
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import explanation
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.evaluation.tasks import TASKS
from ctxseg_jax.models import network
from ctxseg_jax.pretrained import loading
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import loop
from ctxseg_jax.training import optim
from ctxseg_jax.training import run as run_lib
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import weights
from ctxseg_jax.training import workdir as workdir_lib
from ctxseg_jax.training.checkpoint import arrays

Config = Mapping[str, Any] | ml_collections.ConfigDict

_SECTIONS = ("data", "model", "loss", "optim", "eval", "init_from")

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
  top = {key: x for key, x in config.items() if key not in _SECTIONS}
  done, options = schema.complete([run_lib.RunOptions], top, "")
  section = {name: config.get(name) or {} for name in _SECTIONS}
  for name, values in section.items():
    schema.check_keys(values, values, name)

  done["data"], spec, data, augmentation = _parse_data(section["data"])
  done["model"], model = _parse_model(
      section["model"], spec.num_classes, step_lib.AXIS
  )
  done["loss"], terms = _parse_terms(section["loss"])
  done["optim"], optimizer = _parse_optimizer(section["optim"])
  done["eval"], settings = _parse_evaluation(section["eval"], TASKS[spec.task])
  done["init_from"], init_from = schema.complete(
      [loading.InitFrom], section["init_from"], "init_from"
  )
  init_from = schema.make(loading.InitFrom, init_from, "init_from")
  return run_lib.Run(
      config=done,
      data=data,
      spec=spec,
      augmentation=augmentation,
      model=model,
      terms=terms,
      optimizer=optimizer,
      settings=settings,
      protocol=done["eval"].get("protocol"),
      num_pictures=done["eval"]["num_pictures"],
      init_from=init_from if init_from.source else None,
      **options,
  )


def _pick(section, keys):
  """Returns what a section has of some keys, in its order."""
  return {key: value for key, value in section.items() if key in keys}


# `_parse_...` returns a section in its complete form, and what it describes.


def _parse_data(section):
  general = _pick(section, schema.options(options_lib.DataOptions))
  general, _ = schema.complete([options_lib.DataOptions], general, "data")
  spec = datasets.open_spec(
      general["name"],
      general["root"],
      general["spec"],
      overlapping_splits=general["overlapping_splits"],
  )
  own = general["name"] == custom.NAME
  augmentation = TASKS[spec.task].augmentation
  given = dict(pad_color=general["mean"], ignore_label=spec.ignore_label)
  if not own:
    given |= dict.fromkeys(custom.OPTIONS, schema.MISSING)
  done, options = schema.complete(
      [options_lib.DataOptions, augmentation], section, "data", given=given
  )
  if own:
    if done["root"]:  # A converted network has classes, and no folder.
      done["root"] = os.path.abspath(os.path.expanduser(done["root"]))
    done["spec"] = custom.to_record(spec)
    options |= _pick(done, custom.OPTIONS)
  data = schema.make(options_lib.DataOptions, options, "data")
  return done, spec, data, schema.make(augmentation, options, "data")


def _parse_model(section, num_classes, bn_axis_name):
  shared = _pick(section, schema.options(network.Common))
  done, options = schema.complete(
      [network.Common], shared, "model", given=dict(axis_name=bn_axis_name)
  )
  common = schema.make(network.Common, options, "model")
  parts, options = schema.complete(
      [network.SegmentationModel],
      _pick(section, section.keys() - shared.keys()),
      "model",
      given=dict(
          num_classes=num_classes,
          norm=common.norm,
          align_corners=common.align_corners,
          dtype=getattr(jnp, common.dtype),
      ),
      parts=network.PARTS,
  )
  return done | parts, schema.make(network.SegmentationModel, options, "model")


def build_model(
    section: Mapping[str, Any],
    num_classes: int,
    *,
    bn_axis_name: str | None = None,
) -> network.SegmentationModel:
  """Returns the network that the section `model` of a config describes.

  The section has `backbone`, `head` and perhaps `aux_head`, each a `name` and
  its fields, and fields of `network.SegmentationModel` and `network.Common`.
  Batch norms are reduced over the mesh axis `bn_axis_name` in a `shard_map`.

  Raises:
    UserError: As `parse`.
  """
  return _parse_model(section, num_classes, bn_axis_name)[1]


def _parse_optimizer(section):
  return schema.complete_part(
      {"name": "sgd", **section}, optim.OPTIMIZERS, "optim", parts=_SCHEDULES
  )


def build_optimizer(section: Mapping[str, Any]) -> optim.Optimizer:
  """Returns the optimiser of the section `optim`; without a name it is SGD.

  Raises:
    UserError: As `parse`.
  """
  return _parse_optimizer(section)[1]


def _parse_terms(section):
  done, terms = {}, {}
  for name, term in section.items():
    if term not in (None, "None"):  # None takes away a term of the config.
      done[name], terms[name] = _parse_term(name, term)
  if not done:
    raise errors.UserError(
        "config: loss: no terms; expected at least one, such as"
        " dict(ce=dict(output='logits', loss='softmax_cross_entropy'))"
    )
  return done, terms


def _parse_term(name, section):
  where = f"loss.{name}"
  loss = schema.choose(section, "loss", losses.LOSSES, where)
  given = ["loss", "ignore_label"]
  if section["loss"] not in losses.PIXEL_LOSSES:
    given.append("denominator")
  if section["loss"] not in losses.ADDITIVE_LOSSES:
    given.append("num_chunks")
  targets = [losses.Term, loss]
  own = {"output": name} | schema.own_options(section, "loss", targets)
  done, options = schema.complete(
      targets, own, where, given=dict.fromkeys(given, schema.MISSING)
  )
  options["loss"] = schema.make(loss, options, where)
  term = schema.make(losses.Term, options, where)
  return {"loss": str(section["loss"])} | done, term


def build_terms(section: Mapping[str, Any]) -> dict[str, losses.Term]:
  """Returns the terms that the section `loss` of a config describes, by name.

  Raises:
    UserError: As `parse`.
  """
  return _parse_terms(section)[1]


def _parse_evaluation(section, task):
  targets = [task.settings, run_lib.EvalOptions]
  given = {} if task.protocols else {"protocol": schema.MISSING}
  done, options = schema.complete(targets, section, "eval", given=given)
  if task.protocols:
    done["protocol"] = done["protocol"] or task.protocols[0]
    known = dict.fromkeys(task.protocols)
    schema.lookup(known, done["protocol"], "config: eval.protocol")
  return done, schema.make(task.settings, options, "eval")


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
    """Predicts RGB images, uint8 [H, W, 3] each, as evaluations of the run do.

    Returns for each image its classes, uint8 [H, W] (uint16 from 256 classes
    on), or the probabilities of all, float32 [H, W, C]. Networks that classify
    whole images return [] and [C]. Anything but such images is a `ValueError`.
    """
    return self._predictor.predict(
        self.variables, images, probabilities=probabilities
    )

  def explain(
      self, image: np.ndarray, point: tuple[int, int] | None = None
  ) -> explanation.Explanation:
    """Returns what the context head sees in an image, RGB uint8 [H, W, 3].

    `explanation_picture.draw` makes a picture of it. A head with attention has
    it of a point (x, y) in pixels; None is the centre.

    Raises:
      UserError: The head has no context, or the point is outside the image.
    """
    return self._explainer(image, point)

  @functools.cached_property
  def _explainer(self) -> explanation.Explainer:
    return explanation.Explainer(self._predictor, self.variables, self.spec)

  @functools.cached_property
  def _predictor(self) -> batching.Predictor:
    return self.predictor()  # Keeps its compiled programs.

  def settings_with(self, views: Iterable[flags.FlagHolder]) -> tasks.Settings:
    """Returns the config's settings with what flags change of them.

    Raises:
      UserError: As `evaluate.change`.
    """
    return evaluate.change(
        self.run.settings,
        self.spec,
        {flag.name: flag.value for flag in views},
        self.run.augmentation.crop_size,
    )

  def predictor(
      self, settings: tasks.Settings | None = None
  ) -> batching.Predictor:
    """Returns a predictor of the network; None is the config's settings."""
    return self.run.predictor(self.mesh, settings)


def load(workdir: str | os.PathLike[str], which: str = "best") -> Trained:
  """Loads a trained network from a work dir of `train.py`.

  Args:
    workdir: The work dir.
    which: "best" (the highest score so far), "last", or a step that is kept.

  Raises:
    UserError: No work dir, no such checkpoint, or it is damaged.
  """
  path = files.local_path(workdir, "--workdir")
  run = parse(workdir_lib.read_config(path))
  if which not in ("best", "last") and not which.isdecimal():
    raise errors.UserError(
        f"--checkpoint: expected 'best', 'last' or a step, got {which!r}"
    )
  state, step = checkpoint.load(
      path / ("best" if which == "best" else "checkpoints"),
      step=int(which) if which.isdecimal() else None,
  )
  variables = weights.variables(state)
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
