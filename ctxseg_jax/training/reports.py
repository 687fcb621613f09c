"""The evaluations of a run, and the pictures and tables that come with them."""

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np
import tensorboardX

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import pipeline
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import classify
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import inference
from ctxseg_jax.evaluation import visualize
from ctxseg_jax.evaluation.tasks import TASKS
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import preemption
from ctxseg_jax.training import workdir


class Reports:
  """When a run evaluates, and what it writes when it does."""

  def __init__(
      self,
      config: Mapping[str, Any],
      spec: spec_lib.DatasetSpec,
      predictor: inference.Predictor | classify.Predictor,
      source: pipeline.Source,
      folder: workdir.Workdir,
      stop: preemption.StopRequest,
      start: int,
  ):
    """Reads the reports that the work dir has.

    Args:
      config: The resolved config.
      spec: The data set.
      predictor: Makes class maps, or classes.
      source: Examples of the split to evaluate.
      folder: The open work dir.
      stop: Tells whether to abandon an evaluation.
      start: The step the run starts at; later reports are of a future that
        the restored checkpoint took back.
    """
    self._config = config
    self._spec = spec
    self._task = TASKS[spec.task]
    self._predictor = predictor
    self._source = source
    self._folder = folder
    self._stop = stop
    self._every = config.get("eval_every", config["total_steps"])
    self._protocol = experiment.protocol(config)
    pictures = config.get("eval", {}).get("num_pictures", 4)
    self._keep = tuple(
        int(i)
        for i in np.unique(
            np.linspace(0, len(source) - 1, num=pictures).round()
        )
    )
    self._reports = {
        report["step"]: report
        for report in folder.read_evaluations()
        if report["step"] <= start
    }

  def due(self, step: int) -> bool:
    """Returns whether the run evaluates after a step."""
    return step % self._every == 0 or step == self._config["total_steps"]

  def done(self, step: int) -> bool:
    """Returns whether that evaluation is there."""
    return step in self._reports

  def evaluate(
      self,
      step: int,
      state: Any,
      board: tensorboardX.SummaryWriter | None = None,
  ) -> None:
    """Evaluates, writes report and pictures, keeps the best state.

    Args:
      step: The step the state is from.
      state: The `TrainState`.
      board: Where the scores are logged too.

    Raises:
      Preempted: A signal came meanwhile.
    """
    variables = {"params": state.params, **state.model_state}
    result = evaluate.evaluate(
        self._predictor,
        variables,
        self._source,
        self._spec,
        split=self._config["data"]["eval_split"],
        protocol=self._protocol,
        keep=self._keep,
        should_stop=self._stop.requested,
    )
    if result is None:
      raise errors.Preempted(
          f"stopped by {self._stop.name} while evaluating step {step}, which"
          " is saved; run the same command again to go on"
      )
    report, kept = result
    report["step"] = step
    # JSON holds an undefined mean (nobody labelled) as null.
    name = self._task.score
    earlier = [r[name] for r in self._reports.values()]
    if report[name] > max([s for s in earlier if s is not None], default=-1):
      checkpoint.save_best(
          self._folder.best, state, {"step": step, name: report[name]}
      )
    if jax.process_index() == 0:
      self._folder.write_evaluation(step, report)
    self._reports[step] = report
    logging.info("step %d: %s", step, evaluate.summary(report))
    if board is not None:
      for name in self._task.logged:
        board.add_scalar(f"eval/{name}", report[name], step)
    self._draw(step, kept)

  def _draw(self, step, kept):
    for index, (image, label, prediction, name) in kept.items():
      picture = self._task.picture(image, label, prediction, self._spec)
      stem = f"{step:07d}_{index:05d}_{pathlib.Path(name).stem}.png"
      visualize.save_png(self._folder.predictions / stem, picture)

  def finish(self) -> None:
    """Writes the final table and the curves."""
    if jax.process_index() != 0 or not self._reports:
      return
    step = max(self._reports)
    report = self._reports[step]
    visualize.plot_curves(
        self._folder.metrics.read(),
        [self._reports[s] for s in sorted(self._reports)],
        self._folder.path / "curves.png",
        self._spec.references,
        score=self._task.score,
        title=self._task.score_title,
    )
    print(evaluate.describe(report))
    print(
        f"pictures: {self._folder.predictions}, curves:"
        f" {self._folder.path / 'curves.png'}",
        flush=True,
    )
