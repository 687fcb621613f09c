"""The evaluations of a run, and the pictures and tables that come with them."""

from collections.abc import Mapping
import math
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import records
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import confusion_picture
from ctxseg_jax.evaluation import curves
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import pictures
from ctxseg_jax.evaluation import report as report_lib
from ctxseg_jax.evaluation import report_pictures
from ctxseg_jax.evaluation.tasks import TASKS
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import preemption
from ctxseg_jax.training import processes
from ctxseg_jax.training import run as run_lib
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import workdir


class Reports:
  """When a run evaluates, and what it writes when it does.

  With several processes all call every method but `due`. Process 0 alone reads
  and writes the reports, and so decides what is done and what is best.
  """

  def __init__(
      self,
      run: run_lib.Run,
      predictor: batching.Predictor,
      source: records.Source,
      folder: workdir.Workdir,
      checkpoints: checkpoint.Checkpoints,
      stop: preemption.StopRequest,
      start: int,
  ):
    """Reads the reports that the open work dir has.

    Args:
      run: The parsed config.
      predictor: Makes class maps, or classes.
      source: Examples of the split to evaluate.
      folder: The work dir.
      checkpoints: Those of the run.
      stop: Tells whether to abandon an evaluation.
      start: The step the run starts at; later reports do not count.

    Raises:
      UserError: A file in `eval/` is not a report.
    """
    self._run = run
    self._task = TASKS[run.spec.task]
    self._predictor = predictor
    self._source = source
    self._folder = folder
    self._checkpoints = checkpoints
    self._stop = stop
    kept = np.linspace(0, len(source) - 1, num=run.num_pictures).round()
    self._keep = tuple(np.unique(kept.astype(int)).tolist())
    self._reports = {}
    self._last = None  # The last evaluation of this process.
    self._read(start)

  @processes.by_process_0
  def _read(self, start: int) -> None:
    for report in self._folder.read_evaluations():
      step = report["step"]
      try:
        evaluate.describe(report)
        self._score(report)
      except (LookupError, TypeError, ValueError, AttributeError) as e:
        raise errors.UserError(
            f"{self._folder.evaluations / f'{step}.json'}: is not a report of"
            f" {self._task.score} ({type(e).__name__}: {e}); restore it, or"
            " move it away"
        ) from e
      if step <= start:
        self._reports[step] = report

  def due(self, step: int) -> bool:
    """Returns whether the run evaluates after a step."""
    every = self._run.eval_every or self._run.total_steps
    return step % every == 0 or step == self._run.total_steps

  @processes.by_process_0
  def done(self, step: int) -> bool:
    """Returns whether that evaluation is there."""
    return step in self._reports

  def evaluate(self, step: int, state: step_lib.TrainState) -> None:
    """Evaluates the state of a step and writes report and pictures.

    A state with the best score so far is saved in `best/`.

    Raises:
      Preempted: A signal came meanwhile.
    """
    logging.info("Evaluating step %d.", step)
    result = evaluate.evaluate(
        self._predictor,
        state.variables,
        self._source,
        self._run.spec,
        split=self._run.data.eval_split,
        protocol=self._run.protocol,
        keep=self._keep,
        num_extremes=report_pictures.NUM_EACH,
        should_stop=self._stop.requested,
    )
    if result is None:
      raise errors.Preempted(
          f"stopped by {self._stop.name} while evaluating step {step}, which"
          " is saved; run the same command again to go on"
      )
    report, kept = result
    report["step"] = step
    # A result is of a step that the run can go back to.
    self._checkpoints.wait()
    if self._is_best(report):
      checkpoint.save_best(self._folder.best, step, state)
    drawn = {}
    for index in sorted(set(self._keep) & kept.keys()):
      *example, name = kept[index]
      name = f"{index:05d}_{pathlib.Path(name).stem}"
      drawn[name] = self._task.picture(*example, self._run.spec)
    self._write(step, report, drawn)
    logging.info("step %d: %s", step, evaluate.summary(report))
    for name, picture in drawn.items():
      path = self._folder.predictions / f"{step:07d}_{name}.png"
      pictures.save_png(path, picture)
    self._last = report, kept

  @processes.by_process_0
  def _is_best(self, report) -> bool:
    earlier = map(self._score, self._reports.values())
    return self._score(report) > max(earlier, default=-math.inf)

  def _score(self, report) -> float:
    """Returns the score; what is undefined is below any that is not."""
    score = float(report[self._task.score])
    return -1.0 if math.isnan(score) else score

  @processes.by_process_0
  def _write(self, step, report, drawn) -> None:
    figure = self._task.class_figure
    classes = zip(report["class_names"], report[figure], strict=True)
    shown = {f"predictions/{name}": picture for name, picture in drawn.items()}
    # In this order: a row without a report goes when the run is resumed.
    self._folder.metrics.write_evaluation(
        step,
        {name: report[name] for name in self._task.figures},
        {f"{figure}/{name}": value for name, value in classes},
        shown | {"confusion_matrix": confusion_picture.draw(report)},
    )
    with self._folder.writing_evaluation(step) as write:
      write(report)
    self._reports[step] = report

  def finish(self) -> None:
    """Writes the final table, the curves and the page."""
    reports = list(self._reports.values())  # By step.
    if jax.process_index() != 0 or not reports:
      return
    path = self._folder.path / "curves.png"
    curves.plot_curves(
        self._folder.metrics.read(),
        reports,
        path,
        reports[-1]["references"],
        self._task.figures,
    )
    print(evaluate.describe(reports[-1]))
    print(f"pictures: {self._folder.predictions}, curves: {path}", flush=True)
    if self._last is not None:  # Else the page of the earlier start stays.
      page = make_page(
          self._folder, self._run.config, self._run.spec, *self._last
      )
      files.write_atomically(self._folder.report, page)
      print(f"report: {self._folder.report}", flush=True)


def make_page(
    folder: workdir.Workdir,
    config: Mapping[str, Any],
    spec: spec_lib.DatasetSpec,
    report: Mapping[str, Any],
    kept: Mapping[int, tuple],
) -> str:
  """Returns the page about an evaluation of a run.

  Args:
    folder: The work dir of the run.
    config: Its config.
    spec: Its data set.
    report: The report of the evaluation, with `step`.
    kept: The images that came with it, worst and best among them.
  """
  name = files.printable(folder.path.name)
  run = report_lib.describe_run(
      name, report, config, folder.metrics.read(), folder.read_evaluations()
  )
  shown = report_pictures.encode(kept, report, spec)
  return report_lib.render(name, [run], shown)
