"""How far a prediction of many images is."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import time

from absl import logging
import rich.console
import rich.progress

_SECONDS_PER_LINE = 30

# Takes the number of images that are done and that of all.
Report = Callable[[int, int], None]


@contextlib.contextmanager
def shown(
    verb: str, console: rich.console.Console | None = None
) -> Iterator[Report]:
  """Yields what to report progress to: a bar on a terminal, else log lines.

  The verb is what is done to images; the console is standard error by default.
  """
  console = console or rich.console.Console(stderr=True)
  if not console.is_terminal:
    yield log_lines(verb)
    return
  bar = rich.progress.Progress(
      rich.progress.TextColumn(verb),
      rich.progress.BarColumn(bar_width=None),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TimeRemainingColumn(),
      console=console,
      transient=True,
      expand=True,
  )
  task = bar.add_task(verb, total=None)

  def report(done, total):
    bar.start()  # Not before, so that earlier log lines stay above it.
    bar.update(task, completed=done, total=total)

  try:
    yield report
  finally:
    bar.stop()


def log_lines(verb: str) -> Report:
  """Returns what logs progress every half minute."""
  last = time.monotonic()

  def report(done, total):
    nonlocal last
    if time.monotonic() - last >= _SECONDS_PER_LINE:
      last = time.monotonic()
      logging.info("%s: %d of %d images", verb, done, total)

  return report
