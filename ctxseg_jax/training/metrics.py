"""The figures of a run by step: `metrics.jsonl` and TensorBoard's events."""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import json
import math
import os
import pathlib
import time
from typing import Any

import numpy as np
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import json_text
from ctxseg_jax.data import images
from ctxseg_jax.training import processes

_EVALUATION = "eval/"  # What the keys of an evaluation's row start with.
_WALL = "wall_seconds"
_FLUSH_SECONDS = 30.0


class Metrics:
  """Appends one JSON object per logged step and evaluation to a file.

  `{"step": 10, "loss/total": 0.43, ..., "wall_seconds": 12.1}` and
  `{"step": 100, "eval/miou": 0.71, ..., "wall_seconds": 130.2}`; wall time is
  that since the start of the run, without the time between a stop and the
  next start. TensorBoard gets the same figures, and its own clock.

  SummaryWriter is not used: if its thread cannot write, it dies of it, and the
  run waits for it forever.
  """

  def __init__(
      self, folder: pathlib.Path, clock: Callable[[], float] = time.monotonic
  ):
    """Names the work dir; `start` opens the files."""
    self._folder = folder
    self._path = folder / "metrics.jsonl"
    self._clock = clock
    self._started = 0.0  # By the clock, less the wall time of earlier starts.
    self._file = None
    self._events = None
    self._flushed = -math.inf

  @processes.by_process_0
  def start(self, step: int, evaluated: bool = False) -> None:
    """Opens the files on process 0, for a run that is at a step.

    Rows after the step go, since the run does them again, that of its
    evaluation unless it was `evaluated`, and a last line that a kill cut short.
    """
    rows = [
        row
        for row in self.read()
        if (row["step"], any(k.startswith(_EVALUATION) for k in row))
        <= (step, evaluated)
    ]
    text = "".join(f"{json_text.to_json(row)}\n" for row in rows)
    files.write_atomically(self._path, text)
    spent = max((row.get(_WALL) or 0.0 for row in rows), default=0.0)
    self._started = self._clock() - spent
    folder = self._folder / "tensorboard"
    with files.naming(folder):
      folder.mkdir(exist_ok=True)
      self._file = open(self._path, "a", encoding="utf-8")
      self._events = event_file_writer.EventsWriter(
          str(folder / "events"), f".{os.getpid()}.{step}"
      )
    # Takes back the later steps of an earlier start.
    log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add_event(step + 1, session_log=log)

  def close(self) -> None:
    """Closes the files; what cannot be written was an error before."""
    for file in filter(None, (self._events, self._file)):
      with contextlib.suppress(OSError):
        file.close()
    self._events = self._file = None

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Appends the scalars of a step at once; process 0 alone does."""
    if self._file is None:
      return
    wall = {_WALL: round(self._clock() - self._started, 3)}
    with files.naming(self._path):
      self._file.write(
          json_text.to_json({"step": int(step), **scalars, **wall}) + "\n"
      )
      self._file.flush()
    self._add_scalars(step, scalars)

  def write_evaluation(
      self,
      step: int,
      scores: Mapping[str, Any],
      by_class: Mapping[str, Any],
      pictures: Mapping[str, np.ndarray],
  ) -> None:
    """Appends the scores of an evaluation, as `write` does.

    TensorBoard alone gets those `by_class` and the pictures, RGB uint8
    [H, W, 3]; both by tag.
    """
    if self._file is None:
      return
    self.write(step, {f"{_EVALUATION}{k}": v for k, v in scores.items()})
    self._add_scalars(step, by_class)
    for tag, picture in pictures.items():
      image = summary_pb2.Summary.Image(
          height=picture.shape[0],
          width=picture.shape[1],
          colorspace=picture.shape[2],
          # A PNG of photographs would be ten times as large.
          encoded_image_string=images.encode_jpeg(picture),
      )
      value = summary_pb2.Summary.Value(tag=tag, image=image)
      self._add_event(step, summary=summary_pb2.Summary(value=[value]))

  def _add_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    values = [
        summary_pb2.Summary.Value(tag=name, simple_value=value)
        for name, value in json_text.jsonable(scalars).items()
        if isinstance(value, (int, float))
    ]
    self._add_event(step, summary=summary_pb2.Summary(value=values))

  def _add_event(self, step: int, **content: Any) -> None:
    event = event_pb2.Event(wall_time=time.time(), step=step, **content)
    with files.naming(self._folder / "tensorboard"):
      self._events.write_event(event)
      # With an fsync, which is too slow for every step.
      if self._clock() - self._flushed > _FLUSH_SECONDS:
        self._events.flush()
        self._flushed = self._clock()

  def read(self) -> list[dict[str, Any]]:
    """Returns the objects of the file, without a torn last line.

    Raises:
      UserError: A line before the last is not an object with a step.
    """
    if not self._path.exists():
      return []
    rows = []
    # Bytes: a kill may cut a character in two.
    lines = files.read_bytes(self._path).split(b"\n")
    for number, line in enumerate(lines, start=1):
      try:
        row = json.loads(line)
        if not all(
            isinstance(x, (int, float, type(None))) for x in row.values()
        ):
          raise ValueError("not figures")
        rows.append({"step": int(row["step"])} | row)
      except (AttributeError, LookupError, TypeError, ValueError) as e:
        if number < len(lines) and line.strip():
          raise errors.UserError(
              f"{self._path}: line {number} is not a JSON object of figures "
              f"({line[:40]!r}); remove the line or move the file away."
          ) from e
    return rows
