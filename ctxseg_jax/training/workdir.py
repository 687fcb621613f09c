"""The folder of one run: its lock, its config, its metrics and its paths.

config.json           the resolved config, written by the first start
checkpoints/  best/   see `ctxseg_jax.checkpoint`
metrics.jsonl         one object per logged step
eval/<step>.json      scores and confusion matrix of an evaluation
predictions/          a few overlays per evaluation
log.txt               what was logged, times in UTC
.lock                 held while a run is alive
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import fcntl
import functools
import json
import logging as std_logging
import math
import os
import pathlib
import socket
import time
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from ctxseg_jax import errors

_CONFIG = "config.json"
_NUM_LISTED = 8  # Differing keys in a message that must stay one line.


def _by_process_0(method: Callable[..., None]) -> Callable[..., None]:
  """Runs a method on process 0 only; what it raises ends all processes."""

  @functools.wraps(method)
  def on_all(*args, **kwargs):
    error = None
    if jax.process_index() == 0:
      try:
        method(*args, **kwargs)
      except errors.UserError as e:
        error = e
    if jax.process_count() > 1:
      code = np.int32(error.exit_code if error else 0)
      code = int(multihost_utils.broadcast_one_to_all(code))
      if code and error is None:
        error = errors.UserError("process 0 stopped; its output says why")
        error.exit_code = code
    if error is not None:
      raise error

  return on_all


class Workdir:
  """The work dir of a training run, locked while the context is open.

  With several processes all open it, and process 0 alone locks and writes.

  Attributes:
    path: The folder.
    metrics: The writer of `metrics.jsonl`; opened with the context.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path).absolute()
    self.metrics = Metrics(self.path / "metrics.jsonl")
    self._lock = None

  def __enter__(self) -> "Workdir":
    """Makes the folder and takes the lock.

    Raises:
      UserError: If the path is no folder that can be written.
      WorkdirLockedError: If another run holds the lock.
    """
    self._open()
    return self

  @_by_process_0
  def _open(self) -> None:
    try:
      self.path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as e:
      raise errors.UserError(
          f"{self.path}: the work dir, or a folder above it, is a file; choose "
          "another --workdir."
      ) from e
    except OSError as e:
      raise errors.UserError(
          f"{self.path}: cannot make the work dir ({e.strerror}); choose "
          "another --workdir or mend its permissions."
      ) from e
    self._lock = _lock(self.path / ".lock")
    self.metrics.open()

  def __exit__(self, *_) -> None:
    self.metrics.close()
    # The file stays: to unlink it would let a third run lock a new one while
    # a second waits on the old.
    if self._lock is not None:
      self._lock.close()
      self._lock = None

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / "checkpoints"

  @property
  def best(self) -> pathlib.Path:
    return self.path / "best"

  @property
  def predictions(self) -> pathlib.Path:
    return self.path / "predictions"

  @property
  def evaluations(self) -> pathlib.Path:
    return self.path / "eval"

  @property
  def log(self) -> pathlib.Path:
    return self.path / "log.txt"

  @_by_process_0
  def write_config(
      self,
      config: Mapping[str, Any],
      allow_change: bool = False,
      ignore: Sequence[str] = (),
  ) -> None:
    """Writes the config of a new run, or checks it against the one there.

    Args:
      config: The resolved config, of what JSON can hold.
      allow_change: Whether a run may go on with another config, which then
        replaces the one there.
      ignore: Dotted keys that may always change, alone or with all below them
        (`"data.num_workers"`, `"eval"`).

    Raises:
      UserError: If keys differ that may not.
    """
    new = json.loads(_dumps(config))
    path = self.path / _CONFIG
    if path.exists():
      differing = {
          key: change
          for key, change in _differences(read_config(self.path), new).items()
          if not any(key == i or key.startswith(f"{i}.") for i in ignore)
      }
      if differing and not allow_change:
        changes = list(differing.values())[:_NUM_LISTED]
        if len(differing) > len(changes):
          changes.append(f"and {len(differing) - len(changes)} more")
        raise errors.UserError(
            f"{path}: this run was started with another config: "
            f"{', '.join(changes)}; use the old values, choose another "
            "--workdir, or pass --allow_config_change to go on with the new."
        )
      for change in differing.values():
        logging.warning("Config changed on resuming: %s.", change)
    _write_atomically(path, _dumps(new, indent=2, sort_keys=True) + "\n")

  def write_evaluation(
      self, step: int, evaluation: Mapping[str, Any]
  ) -> pathlib.Path:
    """Writes `eval/<step>.json` and returns its path."""
    self.evaluations.mkdir(exist_ok=True)
    path = self.evaluations / f"{step}.json"
    _write_atomically(path, _dumps(evaluation) + "\n")
    return path

  def read_evaluations(self) -> list[dict[str, Any]]:
    """Returns the evaluations by step, each with its `"step"`."""
    paths = [p for p in self.evaluations.glob("*.json") if p.stem.isdecimal()]
    return [
        {"step": int(path.stem)} | json.loads(path.read_text("utf-8"))
        for path in sorted(paths, key=lambda p: int(p.stem))
    ]


class Metrics:
  """Appends one JSON object per logged step to a file."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = None

  def open(self) -> None:
    self._file = open(self._path, "a", encoding="utf-8")

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
      self._file = None

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Appends the scalars of a step; they are in the file on return."""
    self._file.write(_dumps({"step": int(step), **scalars}) + "\n")
    self._file.flush()

  def truncate_after(self, step: int) -> None:
    """Removes the steps after `step`, which a resumed run does again.

    A last line that a kill cut short goes as well.
    """
    kept = [row for row in self.read() if row["step"] <= step]
    was_open = self._file is not None
    self.close()
    _write_atomically(self._path, "".join(f"{_dumps(row)}\n" for row in kept))
    if was_open:
      self.open()

  def read(self) -> list[dict[str, Any]]:
    """Returns the objects of the file, without a torn last line.

    Raises:
      UserError: If a line before the last is not an object with a step.
    """
    if not self._path.exists():
      return []
    rows = []
    # Bytes: a kill may cut a character in two.
    lines = self._path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
      try:
        row = json.loads(line)
        rows.append({"step": int(row["step"])} | row)
      except (ValueError, KeyError, TypeError) as e:
        if number < len(lines) and line.strip():
          raise errors.UserError(
              f"{self._path}: line {number} is not a JSON object with a step "
              f"({line[:40]!r}); remove the line or move the file away."
          ) from e
    return rows


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the config of the run in a work dir.

  Raises:
    UserError: If there is none, or if it is not readable.
  """
  file = pathlib.Path(path) / _CONFIG
  try:
    config = json.loads(file.read_text("utf-8"))
  except (FileNotFoundError, NotADirectoryError) as e:
    raise errors.UserError(
        f"no {_CONFIG} in {path}: is this a work dir of train.py?"
    ) from e
  except OSError as e:
    raise errors.UserError(
        f"{file}: cannot be read ({e.strerror}); mend its permissions."
    ) from e
  except ValueError as e:
    raise errors.UserError(
        f"{file}: is not JSON ({e}); restore it, or choose another --workdir."
    ) from e
  if not isinstance(config, dict):
    raise errors.UserError(
        f"{file}: holds a {type(config).__name__}, expected an object; "
        "restore it, or choose another --workdir."
    )
  return config


def attach_log_file(
    path: str | os.PathLike[str], logger: std_logging.Logger | None = None
) -> std_logging.Handler:
  """Appends what absl logs to a file as well, with UTC times.

  Args:
    path: The file.
    logger: The logger to follow; None is absl's.

  Returns:
    The handler; `logger.removeHandler` and `handler.close` undo this.
  """
  logger = logger or logging.get_absl_logger()
  handler = std_logging.FileHandler(path, mode="a", encoding="utf-8")
  formatter = std_logging.Formatter(
      "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s",
      datefmt="%Y-%m-%dT%H:%M:%S",
  )
  formatter.converter = time.gmtime
  handler.setFormatter(formatter)
  logger.addHandler(handler)
  return handler


def _lock(path: pathlib.Path):
  try:
    file = open(path, "a+", encoding="utf-8")
  except OSError as e:
    raise errors.UserError(
        f"{path.parent}: the work dir cannot be written ({e.strerror}); choose "
        "another --workdir or mend its permissions."
    ) from e
  try:
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
    file.close()
    raise errors.UserError(
        f"{path}: the file system cannot lock files ({e.strerror}); choose a "
        "--workdir on another one."
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


def _dumps(value: Any, **kwargs) -> str:
  return json.dumps(_jsonable(value), allow_nan=False, **kwargs)


def _jsonable(value: Any) -> Any:
  """Returns the value as JSON can hold it; numbers that are not become null."""
  if isinstance(value, Mapping):
    return {str(key): _jsonable(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_jsonable(item) for item in value]
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars.
    # Through NumPy: bfloat16 arrays have no Python numbers of their own.
    array = np.asarray(value)
    if array.dtype.kind not in "biufOUS":
      array = array.astype(np.float32)
    return _jsonable(array.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _write_atomically(path: pathlib.Path, text: str) -> None:
  tmp = path.with_name(f"{path.name}.tmp")
  with open(tmp, "w", encoding="utf-8") as f:
    f.write(text)
    f.flush()
    os.fsync(f.fileno())
  os.replace(tmp, path)
