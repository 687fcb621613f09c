"""The folder of one run: its mark, its lock, its config and its paths.

.ctxseg_jax           the mark of a work dir: without it nothing is written
config.json           the resolved config, written when the first start is sound
checkpoints/  best/   see `ctxseg_jax.training.checkpoint`
metrics.jsonl         see `ctxseg_jax.training.metrics`
tensorboard/          the same, as TensorBoard events
eval/<step>.json      scores and confusion matrix of an evaluation
predictions/          a few overlays per evaluation
curves.png            loss, learning rate and score over the steps
log.txt               what was logged, times in UTC
.lock                 held while a run is alive
"""

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
import stat
import time
from typing import Any
from typing import TextIO

from absl import logging

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.training import metrics
from ctxseg_jax.training import processes

_CONFIG = "config.json"
_MARK = ".ctxseg_jax"
_MARK_TEXT = "A work dir of ctxseg_jax: train.py writes and deletes here.\n"
_FOLDERS = ("checkpoints", "best", "eval", "predictions", "tensorboard")
_FILES = (_CONFIG, "metrics.jsonl", "log.txt", "curves.png")
_NUM_LISTED = 8  # Differing keys in a message that must stay one line.


class Workdir:
  """The work dir of a training run, locked while the context is open.

  With several processes all open it, and process 0 alone locks and writes.

  Attributes:
    path: The folder.
    checkpoints: Folder of the latest checkpoints.
    best: Folder of the best one.
    evaluations: Folder of the reports.
    predictions: Folder of the pictures.
    metrics: What is logged at steps; `metrics.start` opens it.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Names the folder; `~` is expanded, and a URL a `UserError`."""
    self.path = files.local_path(path, "--workdir").absolute()
    self.checkpoints = self.path / "checkpoints"
    self.best = self.path / "best"
    self.evaluations = self.path / "eval"
    self.predictions = self.path / "predictions"
    self.metrics = metrics.Metrics(self.path)
    self._exits = contextlib.ExitStack()

  @processes.by_process_0
  def _open(self) -> None:
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      if not (self.path / _MARK).exists():
        others = sorted(os.listdir(self.path))
        if others:
          listed = ", ".join(map(files.printable, others[:3]))
          raise errors.UserError(
              f"{self.path}: not a work dir of train.py: it holds"
              f" {listed}{', ...' * (len(others) > 3)} and no {_MARK}; nothing"
              " was changed. Choose another --workdir, or an empty one; to go"
              f" on with a copy of a run, copy its {_MARK} too."
          )
        (self.path / _MARK).write_text(_MARK_TEXT, "utf-8")
    except OSError as e:
      problem = f"cannot make the work dir ({e.strerror})"
      if isinstance(e, (FileExistsError, NotADirectoryError)):
        problem = "the work dir, or a folder above it, is a file"
      raise errors.UserError(
          f"{self.path}: {problem}; choose another --workdir or mend its"
          " permissions."
      ) from e
    self._check_kinds()
    self._exits.callback(_lock(self.path / ".lock").close)

  def _check_kinds(self) -> None:
    """Refuses at once what would stop the run hours later."""
    for names, is_kind, kind in (
        (_FOLDERS, stat.S_ISDIR, "folder"),
        (_FILES, stat.S_ISREG, "regular file"),
    ):
      for path in (self.path / name for name in names):
        if os.path.lexists(path) and not (
            path.exists()
            and is_kind(path.stat().st_mode)
            and os.access(path, os.W_OK)
        ):
          raise errors.UserError(
              f"{path}: expected a {kind} that can be written; move it away or"
              " mend its permissions."
          )

  def __enter__(self) -> "Workdir":
    """Makes or recognises the folder, and takes the lock.

    Raises:
      UserError: If the path is no folder that can be written, or a folder that
        no run has made; nothing was changed then.
      WorkdirLockedError: If another run holds the lock.
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
    handler = _LogFile(self.path / "log.txt", mode="a", encoding="utf-8")
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
    """Compares the config with the one that the run was started with.

    Args:
      config: The resolved config, of what JSON can hold.
      allow_change: Whether a run may go on with another config.
      ignore: Dotted keys that may always change, alone or with all below them
        (`"data.num_workers"`, `"eval"`).

    Raises:
      UserError: If keys differ that may not.
    """
    path = self.path / _CONFIG
    if not path.exists():
      return
    new = json.loads(metrics.to_json(config))
    differing = [
        change
        for key, change in _differences(read_config(self.path), new).items()
        if not any(key == i or key.startswith(f"{i}.") for i in ignore)
    ]
    if differing and not allow_change:
      changes = differing[:_NUM_LISTED]
      if len(differing) > len(changes):
        changes.append(f"and {len(differing) - len(changes)} more")
      raise errors.UserError(
          f"{path}: this run was started with another config: "
          f"{', '.join(changes)}; use the old values, choose another "
          "--workdir, or pass --allow_config_change to go on with the new."
      )
    for change in differing:
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
    text = metrics.to_json(config, indent=2, sort_keys=True) + "\n"
    files.write_atomically(self.path / _CONFIG, text)

  def write_evaluation(
      self, step: int | str, evaluation: Mapping[str, Any]
  ) -> pathlib.Path:
    """Writes `eval/<step>.json` and returns its path."""
    with files.naming(self.evaluations):
      self.evaluations.mkdir(exist_ok=True)
    path = self.evaluations / f"{step}.json"
    files.write_atomically(path, metrics.to_json(evaluation) + "\n")
    return path

  def read_evaluations(self) -> list[dict[str, Any]]:
    """Returns the evaluations by step, each with its `"step"`.

    What JSON holds as null is NaN again: a score of classes without a pixel.

    Raises:
      UserError: A file is not an evaluation.
    """
    paths = [p for p in self.evaluations.glob("*.json") if p.stem.isdecimal()]
    paths.sort(key=lambda path: int(path.stem))
    return [
        {
            **_with_nan(_read_object(path, "an evaluation")),
            "step": int(path.stem),
        }
        for path in paths
    ]


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the config of the run in a work dir.

  Raises:
    UserError: If there is none, or if it is not readable.
  """
  file = pathlib.Path(path) / _CONFIG
  if not os.path.lexists(file):
    raise errors.UserError(
        f"no {_CONFIG} in {path}: is this a work dir of train.py?"
    )
  return _read_object(file, "a config")


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
  """Returns what JSON holds with NaN for null."""
  if isinstance(value, dict):
    return {key: _with_nan(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_with_nan(item) for item in value]
  return math.nan if value is None else value


class _LogFile(std_logging.FileHandler):
  """Stays silent when it cannot write: what else is written tells of that."""

  def handleError(self, record):  # pylint: disable=invalid-name
    pass


def _lock(path: pathlib.Path) -> TextIO:
  try:
    file = open(path, "a+", encoding="utf-8")
    # The kernel frees it when the process ends, however it ends.
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as e:
    file.seek(0)
    holder = file.read().strip() or "an unknown process"
    file.close()
    raise errors.WorkdirLockedError(
        f"{path.parent}: the work dir is in use by {holder}; wait for it, stop "
        "it, or choose another --workdir."
    ) from e
  except OSError as e:
    raise errors.UserError(
        f"{path}: cannot be written and locked ({e.strerror}); mend its"
        " permissions, or choose a --workdir on another file system."
    ) from e
  file.truncate(0)
  file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
  file.flush()
  return file


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> dict[str, str]:
  """Returns e.g. `{"optim.lr": "optim.lr 0.01 -> 0.02"}`."""
  differing = {}
  for key in sorted(old.keys() | new.keys()):
    name = f"{prefix}{key}"
    a = old.get(key, ...)
    b = new.get(key, ...)
    if isinstance(a, dict) and isinstance(b, dict):
      differing |= _differences(a, b, f"{name}.")
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
      differing[name] = f"{name} {_show(a)} -> {_show(b)}"
  return differing


def _show(value: Any) -> str:
  if value is ...:
    return "(absent)"
  text = json.dumps(value)
  return text if len(text) <= 60 else f"{text[:57]}..."
