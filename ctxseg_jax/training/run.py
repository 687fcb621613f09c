"""What a training run is made of, typed: the config after it was parsed."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax

from ctxseg_jax import errors
from ctxseg_jax.bounds import NonNegativeInt
from ctxseg_jax.bounds import PositiveInt
from ctxseg_jax.data import options as options_lib
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.losses import term as term_lib
from ctxseg_jax.models import network
from ctxseg_jax.pretrained import loading
from ctxseg_jax.training import optim
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import warping

# Options that a resumed run may change: they do not affect the training.
FREE_KEYS = (
    *("data.data_dir", "data.root", "data.num_workers", "eval"),
    "data.overlapping_splits",
    *("log_every", "checkpoint_every", "eval_every", "max_to_keep"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
  """The options of a config that are in none of its sections.

  Attributes:
    seed: Of parameters, order of examples, augmentation and dropout.
    batch_size: Images of an update, over all devices of all processes.
    total_steps: Updates of the whole training.
    log_every: Steps between lines in the log and in metrics.jsonl.
    checkpoint_every: Steps between checkpoints; there is one at the end, too.
    eval_every: Steps between evaluations; None evaluates at the end only.
    max_to_keep: Checkpoints that are kept beside the best.
    switches: The step from which each switch of the model is on; 0 if absent.
  """

  seed: NonNegativeInt = 0
  batch_size: PositiveInt
  total_steps: PositiveInt
  log_every: PositiveInt = 10
  checkpoint_every: PositiveInt = 1000
  eval_every: PositiveInt | None = None
  max_to_keep: PositiveInt = 2
  switches: dict[str, NonNegativeInt] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
  """The options of a config's section `eval` that every task has.

  Attributes:
    protocol: By which rule absent classes enter the mean IoU; a name of
      `evaluation.metrics.PROTOCOLS`. None is the task's default.
    num_pictures: Pictures that each evaluation writes.
  """

  protocol: str | None = None
  num_pictures: NonNegativeInt = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(RunOptions):
  """A parsed config.

  Attributes:
    config: The complete config it was parsed from, plain values.
    data: Where the examples are, and how they are normalised.
    spec: The data set.
    augmentation: What is done to each training example.
    model: The network, its batch norms reduced over the mesh.
    terms: The terms of the loss, by name.
    optimizer: The optimiser with its schedule.
    settings: How predictions are made in evaluations.
    protocol: By which rule they are scored; None where there is one only.
    num_pictures: Pictures that each evaluation writes.
    init_from: The file that a new run starts from; None for random weights.
  """

  config: dict[str, Any]
  data: options_lib.DataOptions
  spec: spec_lib.DatasetSpec
  augmentation: transforms.Augmentation | transforms.PaddedCrop
  model: network.SegmentationModel
  terms: dict[str, term_lib.Term]
  optimizer: optim.Optimizer
  settings: tasks.Settings
  protocol: str | None
  num_pictures: NonNegativeInt
  init_from: loading.InitFrom | None

  def init_state(
      self, tx: optax.GradientTransformation, key: jax.Array
  ) -> step_lib.TrainState:
    return step_lib.init_state(
        self.model,
        tx,
        key,
        self.augmentation.crop_size,
        average=self.optimizer.ema_decay is not None,
    )

  def train_step(
      self, tx: optax.GradientTransformation, mesh: jax.sharding.Mesh
  ) -> Callable[..., Any]:
    """Returns what `training.step.make_train_step` does."""
    return step_lib.make_train_step(
        self.model,
        tx,
        mesh,
        self.terms,
        mean=self.data.mean,
        std=self.data.std,
        ignore_label=self.spec.ignore_label,
        switches=self.switches,
        accumulate_steps=self.optimizer.accumulate_steps,
        ema_decay=self.optimizer.ema_decay,
        frozen=self.optimizer.freeze,
        warp=self._warp,
    )

  def host_augmentation(
      self, sizes: np.ndarray
  ) -> transforms.Augmentation | transforms.PaddedCrop | transforms.Unwarped:
    """Returns what the host does to training images of (H, W), [N, 2]."""
    if not self._warps_on_device:
      return self.augmentation
    canvas = tuple(sizes.max(axis=0).tolist())
    return transforms.Unwarped(self.augmentation, canvas)

  @property
  def _warps_on_device(self):
    return getattr(self.augmentation, "warp", "host") == "device"

  @property
  def _warp(self):
    """What devices do to training images; None is nothing."""
    if not self._warps_on_device:
      return None
    return functools.partial(
        warping.warp,
        crop_size=self.augmentation.crop_size,
        pad_color=self.augmentation.pad_color,
        ignore_label=self.augmentation.ignore_label,
    )

  def check_batch_size(self, num_devices: int) -> None:
    """Raises a `UserError` if devices cannot share a batch equally."""
    parts = num_devices * self.optimizer.accumulate_steps
    if self.batch_size % parts:
      of_devices = f"{num_devices} devices"
      if self.optimizer.accumulate_steps > 1:
        of_devices += f" of {self.optimizer.accumulate_steps} parts each"
      raise errors.UserError(
          f"config: batch_size: {self.batch_size} does not divide over"
          f" {of_devices}; use a multiple of {parts}"
      )

  def predictor(
      self, mesh: jax.sharding.Mesh, settings: tasks.Settings | None = None
  ) -> batching.Predictor:
    """Returns what predicts on a mesh; without settings as the config says."""
    return tasks.TASKS[self.spec.task].make_predictor(
        self.model,
        mesh,
        mean=self.data.mean,
        std=self.data.std,
        settings=settings or self.settings,
        crop_size=self.augmentation.crop_size,
    )
