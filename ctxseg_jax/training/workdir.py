"""The folder of one run: its mark, its lock, its config and its paths.

.ctxseg_jax           the mark of a work dir: without it nothing is written
config.json           the resolved config, written when the first start is sound
checkpoints/  best/   see `ctxseg_jax.training.checkpoint`
metrics.jsonl         see `ctxseg_jax.training.metrics`
tensorboard/          the same, as TensorBoard events
eval/<step>.json      scores and confusion matrix of an evaluation
predictions/          a few overlays per evaluation
curves.png            loss, learning rate and score over the steps
report.html           an evaluation with curves and images, to open in a browser
log.txt               what was logged, times in UTC
.lock                 held while a run is alive
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import fcntl
import json
import logging as std_logging
import math
import os
import pathlib
import socket
import time
from typing import Any
from typing import TextIO

from absl import logging
import flax

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import json_text
from ctxseg_jax.training import metrics
from ctxseg_jax.training import processes

_CONFIG = "config.json"
_MARK = ".ctxseg_jax"
_MARK_TEXT = "A work dir of ctxseg_jax: train.py writes and deletes here.\n"
_FOLDERS = ("checkpoints", "best", "eval", "predictions", "tensorboard")
_FILES = (_CONFIG, "metrics.jsonl", "log.txt", "curves.png", "report.html")
_NUM_LISTED = 8  # Differing keys in a message that must stay one line.


class Workdir:
  """The work dir of a training run, locked while the context is open.

  With several processes all open it, and process 0 alone locks and writes.

  Attributes:
    path: The folder; those in it are named as above.
    metrics: What is logged at steps; `metrics.start` opens it.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Names the folder; `~` is expanded, and a URL a `UserError`."""
    self.path = files.local_path(path, "--workdir").absolute()
    self.checkpoints = self.path / "checkpoints"
    self.best = self.path / "best"
    self.evaluations = self.path / "eval"
    self.predictions = self.path / "predictions"
    self.report = self.path / "report.html"
    self.metrics = metrics.Metrics(self.path)
    self._exits = contextlib.ExitStack()

  @processes.by_process_0
  def _open(self) -> None:
    if self.path.exists() and not self.path.is_dir():
      raise errors.UserError(
          f"{self.path}: exists and is a file; choose another --workdir"
      )
    with files.naming(self.path):
      self.path.mkdir(parents=True, exist_ok=True)
      others = sorted(os.listdir(self.path))
      if others and _MARK not in others:
        listed = ", ".join(map(files.printable, others[:3]))
        raise errors.UserError(
            f"{self.path}: not a work dir of train.py: it holds {listed}"
            f"{', ...' * (len(others) > 3)} and no {_MARK}; nothing was"
            " changed. Choose another --workdir, or an empty one; to go on with"
            f" a copy of a run, copy its {_MARK} too."
        )
      if not others:
        (self.path / _MARK).write_text(_MARK_TEXT, "utf-8")
      # Found hours later, one of another kind would stop the run.
      for name in (*_FOLDERS, *_FILES):
        path = self.path / name
        is_good = path.is_dir() if name in _FOLDERS else path.is_file()
        if os.path.lexists(path) and not (is_good and os.access(path, os.W_OK)):
          kind = "folder" if name in _FOLDERS else "regular file"
          raise errors.UserError(
              f"{path}: expected a {kind} that can be written; move it away or"
              " mend its permissions."
          )
      self._exits.callback(_lock(self.path / ".lock").close)

  def __enter__(self) -> "Workdir":
    """Makes or recognises the folder, and takes the lock.

    Raises:
      UserError: The path is no folder that can be written, or one that no run
        has made; nothing was changed then.
      WorkdirLockedError: Another run holds the lock.
    """
    self._open()
    return self

  def __exit__(self, *_) -> None:
    # The lock's file stays: to unlink it would let a third run lock a new one
    # while a second waits on the old.
    with self._exits:
      self.metrics.close()

  @processes.by_process_0
  def start_log(self) -> None:
    """Appends to `log.txt` what absl logs while the context is open, in UTC."""
    handler = std_logging.FileHandler(self.path / "log.txt", encoding="utf-8")
    # What else is written fails as well, and tells of that.
    handler.handleError = lambda record: None
    formatter = std_logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger = logging.get_absl_logger()
    logger.addHandler(handler)
    self._exits.callback(handler.close)
    self._exits.callback(logger.removeHandler, handler)

  @processes.by_process_0
  def check_config(
      self,
      config: Mapping[str, Any],
      allow_change: bool = False,
      ignore: Sequence[str] = (),
  ) -> None:
    """Refuses, with a `UserError`, a config other than the run's.

    Args:
      config: The resolved config, of what JSON can hold.
      allow_change: Whether the run may go on with another config.
      ignore: Dotted keys that may always change, with all below them.
    """
    path = self.path / _CONFIG
    if not path.exists():
      return
    changes = [
        f"{key} {old} -> {new}"
        for key, old, new in _differing(read_config(self.path), config)
        if not any(f"{key}.".startswith(f"{i}.") for i in ignore)
    ]
    if changes and not allow_change:
      more = len(changes) - _NUM_LISTED
      listed = changes[:_NUM_LISTED] + [f"and {more} more"] * (more > 0)
      raise errors.UserError(
          f"{path}: this run was started with another config:"
          f" {', '.join(listed)}; use the old values, choose another"
          " --workdir, or pass --allow_config_change to go on with the new."
      )
    for change in changes:
      logging.warning("Config changed on resuming: %s.", change)

  @processes.by_process_0
  def check_fresh(self) -> None:
    """Refuses, with a `UserError`, to start anew among the results of a run."""
    for folder in (self.best, self.evaluations):
      for path in sorted(folder.glob("[0-9]*")):
        raise errors.UserError(
            f"{path}: the result of a run whose {self.checkpoints} are gone,"
            " and a new run would replace it; copy them back, or choose"
            " another --workdir to start from step 0."
        )

  @processes.by_process_0
  def write_config(self, config: Mapping[str, Any]) -> None:
    """Writes the config, once the run is known to be able to go on with it."""
    text = json_text.to_json(config, indent=2, sort_keys=True) + "\n"
    files.write_atomically(self.path / _CONFIG, text)

  @contextlib.contextmanager
  def writing_evaluation(
      self, step: int | str
  ) -> Iterator[Callable[[Mapping[str, Any]], pathlib.Path]]:
    """Yields what writes `eval/<step>.json` once, and returns its path.

    That it cannot be written is a `UserError` before the block.
    """
    path = self.evaluations / f"{step}.json"
    with files.naming(path):
      self.evaluations.mkdir(exist_ok=True)
    with files.writing(path) as file:

      def write(evaluation):
        file.write(f"{json_text.to_json(evaluation)}\n".encode())
        return path

      yield write

  def read_evaluations(self) -> list[dict[str, Any]]:
    """Returns the evaluations by step, each with its `"step"`.

    What JSON holds as null is NaN again: a score of classes without a pixel. A
    file that is not an evaluation is a `UserError`.
    """
    paths = {
        int(path.stem): path
        for path in self.evaluations.glob("*.json")
        if path.stem.isdecimal()
    }
    return [
        read_evaluation(path) | {"step": step}
        for step, path in sorted(paths.items())
    ]


def read_evaluation(path: pathlib.Path) -> dict[str, Any]:
  """Returns one evaluation; see `Workdir.read_evaluations`."""
  return _with_nan(_read_object(path, "an evaluation"))


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the config of a work dir; without a readable one a `UserError`."""
  file = pathlib.Path(path) / _CONFIG
  if os.path.lexists(file):
    return _read_object(file, "a config")
  raise errors.UserError(
      f"no {_CONFIG} in {path}: is this a work dir of train.py?"
  )


def _read_object(path: pathlib.Path, what: str) -> dict[str, Any]:
  remedy = "restore it, or move it away."
  text = files.read_text(path, what=what, remedy=remedy)
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as e:
    raise errors.UserError(f"{path}: is not JSON ({e}); {remedy}") from e
  if not isinstance(value, dict):
    raise errors.UserError(
        f"{path}: holds a {type(value).__name__}, expected {what}; {remedy}"
    )
  return value


def _with_nan(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _with_nan(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_with_nan(item) for item in value]
  return math.nan if value is None else value


def _lock(path: pathlib.Path) -> TextIO:
  file = open(path, "a+", encoding="utf-8")
  try:
    # The kernel frees it when the process ends, however it ends.
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as e:
    file.seek(0)
    holder = file.read().strip() or "an unknown process"
    raise errors.WorkdirLockedError(
        f"{path.parent}: the work dir is in use by {holder}; wait for it, stop"
        " it, or choose another --workdir."
    ) from e
  file.truncate(0)
  file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
  file.flush()
  return file


def _differing(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
  """Returns e.g. `("optim.lr", "0.01", "0.02")` for each that differs."""
  old, new = (flax.traverse_util.flatten_dict(x, sep=".") for x in (old, new))
  found = []
  for key in sorted(old | new):
    a, b = (json_text.to_json(x[key]) if key in x else None for x in (old, new))
    if a != b:
      found.append((key, _short(a), _short(b)))
  return found


def _short(text: str | None) -> str:
  text = text or "(absent)"
  return text if len(text) <= 60 else f"{text[:57]}..."
