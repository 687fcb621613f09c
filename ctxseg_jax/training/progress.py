"""How training is going: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import datetime
import sys
import time
from typing import Any

from absl import logging
import rich.console
import rich.progress

_STEP_LINE = "step %d/%d  %s"
_FIGURES = {
    "loss/total": "loss {:.4f}",
    "learning_rate": "lr {:.3g}",
    "images_per_second": "{:.1f} img/s",
    "data_wait_share": "data wait {:.0%}",
}
_INPUT_BOUND = 0.3  # Share of the time waiting for data worth a word.


class Meter:
  """Measures images per second and the time spent waiting for data.

  The first step compiles, so its time is left out of everything.
  """

  def __init__(
      self,
      batch_size: int,
      total_steps: int,
      clock: Callable[[], float] = time.monotonic,
  ):
    self._batch_size = batch_size
    self._total_steps = total_steps
    self._clock = clock
    self._steps = 0
    self._waiting = 0.0
    self._since = None  # The end of the first step, or the last reading.
    self._seconds_per_step = None

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    start = self._clock()
    yield
    self._waiting += self._clock() - start

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time spent in the context, after a step, out of everything."""
    start = self._clock()
    yield
    self._since += self._clock() - start

  def count_step(self) -> None:
    """Counts a step that was dispatched (compiling does not return early)."""
    self._steps += 1
    if self._since is None:
      self._reset()  # Leaves out the first step.

  def read(self, step: int) -> dict[str, float]:
    """Returns the figures since the last call, which the loop has waited for.

    They are `images_per_second`, `data_wait_share` (0 to 1) and `eta_seconds`,
    the last from a moving average; none before the second counted step.
    """
    if self._steps < 1:
      return {}
    seconds = max(self._clock() - self._since, 1e-9)
    now = seconds / self._steps
    before = self._seconds_per_step or now
    self._seconds_per_step = before + 0.3 * (now - before)
    rates = dict(
        images_per_second=self._batch_size / now,
        data_wait_share=min(self._waiting / seconds, 1.0),
        eta_seconds=max(self._total_steps - step, 0) * self._seconds_per_step,
    )
    self._reset()
    return rates

  def _reset(self) -> None:
    self._steps = 0
    self._waiting = 0.0
    self._since = self._clock()


class Progress:
  """Shows the progress of training while the context is open.

  One log line per update; on a terminal a bar that stays at the bottom instead,
  and the lines go to other handlers (the log file) alone.
  """

  def __init__(
      self,
      total_steps: int,
      start_step: int = 0,
      console: rich.console.Console | None = None,
  ):
    self._total_steps = total_steps
    self._start_step = start_step
    # Where absl logs, so that a redirected standard output stays clean.
    self._console = console or rich.console.Console(file=sys.stderr)
    self._warned = False
    self._bar = None
    self._exits = contextlib.ExitStack()

  def __enter__(self) -> "Progress":
    if not self._console.is_terminal:
      return self
    self._bar = rich.progress.Progress(
        rich.progress.TextColumn("[bold]step {task.completed}/{task.total}"),
        rich.progress.BarColumn(bar_width=None),
        rich.progress.TextColumn("{task.fields[figures]}"),
        console=self._console,
        expand=True,
    )
    task = dict(total=self._total_steps, completed=self._start_step)
    self._bar.add_task("train", **task, figures="compiling")
    handler = logging.get_absl_handler()
    handler.addFilter(_is_no_step_line)
    self._exits.callback(handler.removeFilter, _is_no_step_line)
    # The bar replaces standard error, to print above itself, but absl holds
    # the one before.
    python_handler = handler.python_handler
    follows = python_handler.stream is sys.stderr
    self._exits.enter_context(self._bar)
    if follows:
      before = python_handler.setStream(sys.stderr)
      self._exits.callback(python_handler.setStream, before)
    return self

  def __exit__(self, *_) -> None:
    self._exits.close()

  def update(self, step: int, figures: Mapping[str, Any]) -> None:
    """Shows those of `_FIGURES` that a logged step has."""
    shown = [
        form.format(figures[name])
        for name, form in _FIGURES.items()
        if name in figures
    ]
    if "eta_seconds" in figures:
      eta = datetime.timedelta(seconds=round(figures["eta_seconds"]))
      shown.append(f"ETA {eta}")
    text = "  ".join(shown)
    logging.info(_STEP_LINE, step, self._total_steps, text)
    if self._bar is not None:
      self._bar.update(self._bar.task_ids[0], completed=step, figures=text)
    share = figures.get("data_wait_share", 0.0)
    if share > _INPUT_BOUND and not self._warned:
      self._warned = True
      logging.warning(
          "Input bound: %.0f%% of the time goes into waiting for data; raise "
          "config.data.num_workers.",
          100 * share,
      )


def _is_no_step_line(record) -> bool:
  return record.msg is not _STEP_LINE
