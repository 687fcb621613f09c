"""How training is going: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import sys
import time
from typing import Any

from absl import logging
import rich.console
import rich.progress

_STEP_LINE = "step %d/%d  %s"
_INPUT_BOUND = 0.3  # Share of the time waiting for data worth a word.


class Meter:
  """Measures images per second and the time spent waiting for data.

  The first step compiles, so its time is left out of everything.

      meter = Meter(batch_size, total_steps)
      for step in ...:
        with meter.waiting_for_data():
          batch = next(batches)
        ...
        meter.count_step()
        if step % log_every == 0:
          rates = meter.read(step)
  """

  def __init__(
      self,
      batch_size: int,
      total_steps: int,
      clock: Callable[[], float] = time.monotonic,
  ):
    """Makes a meter; its clock starts with the first counted step.

    Args:
      batch_size: Images per step, over all devices.
      total_steps: The step at which training ends.
      clock: Returns seconds.
    """
    self._batch_size = batch_size
    self._total_steps = total_steps
    self._clock = clock
    self._steps = 0
    self._waiting = 0.0
    self._paused = 0.0
    self._since = None
    self._seconds_per_step = None

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Counts the time spent in the context as waiting for data."""
    start = self._clock()
    yield
    self._waiting += self._clock() - start

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time spent in the context (evaluation) out of everything."""
    start = self._clock()
    yield
    self._paused += self._clock() - start

  def count_step(self) -> None:
    """Counts a step that was dispatched (compiling does not return early)."""
    self._steps += 1
    if self._since is None:
      self._reset()  # Leaves out the first step.

  def read(self, step: int) -> dict[str, float]:
    """Returns the figures since the last call, which the loop has waited for.

    Args:
      step: The step just done.

    Returns:
      `images_per_second`, `data_wait_share` (0 to 1) and `eta_seconds`, the
      last from a moving average; NaN where nothing was measured yet.
    """
    nan = float("nan")
    if self._since is None or self._steps < 1:
      return dict(images_per_second=nan, data_wait_share=nan, eta_seconds=nan)
    seconds = max(self._clock() - self._since - self._paused, 1e-9)
    now = seconds / self._steps
    if self._seconds_per_step is None:
      self._seconds_per_step = now
    else:
      self._seconds_per_step += 0.3 * (now - self._seconds_per_step)
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
    self._paused = 0.0
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
    """Args are the last step, the steps done before and where to show it."""
    self._total_steps = total_steps
    self._start_step = start_step
    # Where absl logs, so that a redirected standard output stays clean.
    self._console = console or rich.console.Console(file=sys.stderr)
    self._warned = False
    self._bar = None
    self._task = None
    self._log_stream = None

  def __enter__(self) -> "Progress":
    if self._console.is_terminal:
      self._bar = rich.progress.Progress(
          rich.progress.TextColumn("[bold]step {task.completed}/{task.total}"),
          rich.progress.BarColumn(bar_width=None),
          rich.progress.TextColumn("{task.fields[figures]}"),
          console=self._console,
          expand=True,
      )
      # The bar replaces standard error, to print above itself, but absl
      # holds the one before.
      logging.get_absl_handler().addFilter(_is_no_step_line)
      handler = logging.get_absl_handler().python_handler
      follows = handler.stream is sys.stderr
      self._bar.start()
      if follows:
        self._log_stream = handler.setStream(sys.stderr)
      self._task = self._bar.add_task(
          "train",
          total=self._total_steps,
          completed=self._start_step,
          figures="compiling",
      )
    return self

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      logging.get_absl_handler().removeFilter(_is_no_step_line)
      self._bar.stop()
      self._bar = None
    if self._log_stream is not None:
      handler = logging.get_absl_handler().python_handler
      handler.setStream(self._log_stream)
      self._log_stream = None

  def update(
      self,
      step: int,
      scalars: Mapping[str, Any],
      images_per_second: float = float("nan"),
      data_wait_share: float = float("nan"),
      eta_seconds: float = float("nan"),
  ) -> None:
    """Shows the figures of a logged step.

    Args:
      step: The step just done.
      scalars: Of these, `"loss/total"` (or `"loss"`) and `"learning_rate"`
        are shown.
      images_per_second: As `Meter.read`.
      data_wait_share: As `Meter.read`.
      eta_seconds: As `Meter.read`.
    """
    figures = format_figures(
        scalars, images_per_second, data_wait_share, eta_seconds
    )
    logging.info(_STEP_LINE, step, self._total_steps, figures)
    if self._bar is not None:
      self._bar.update(self._task, completed=step, figures=figures)
    if data_wait_share > _INPUT_BOUND and not self._warned:
      self._warned = True
      logging.warning(
          "Input bound: %.0f%% of the time goes into waiting for data; raise "
          "config.data.num_workers.",
          100 * data_wait_share,
      )


def _is_no_step_line(record) -> bool:
  return record.msg is not _STEP_LINE


def format_figures(
    scalars: Mapping[str, Any],
    images_per_second: float,
    data_wait_share: float,
    eta_seconds: float,
) -> str:
  """Returns e.g. `loss 0.4321  lr 0.0261  85.3 img/s  data wait 3%  ETA 0:48`.

  Figures that are absent or NaN are left out, except for the loss.
  """
  parts = []
  loss = scalars.get("loss/total", scalars.get("loss"))
  if loss is not None:
    parts.append(f"loss {float(loss):.4f}")
  if "learning_rate" in scalars:
    parts.append(f"lr {float(scalars['learning_rate']):.3g}")
  if images_per_second == images_per_second:
    parts.append(f"{images_per_second:.1f} img/s")
  if data_wait_share == data_wait_share:
    parts.append(f"data wait {100 * data_wait_share:.0f}%")
  if eta_seconds == eta_seconds:
    parts.append(f"ETA {format_seconds(eta_seconds)}")
  return "  ".join(parts)


def format_seconds(seconds: float) -> str:
  """Returns e.g. `0:48`, `12:05`, `3:12:05` or `2d 03:12:05`."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  if days:
    return f"{days}d {hours:02d}:{minutes:02d}:{seconds:02d}"
  if hours:
    return f"{hours}:{minutes:02d}:{seconds:02d}"
  return f"{minutes}:{seconds:02d}"
