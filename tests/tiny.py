"""A run of seconds, for tests that start the commands as a user does.

The data set and compiled programs are kept in the system's temporary folder,
so that only the first test of the first session waits for them.
"""

import atexit
from collections.abc import Sequence
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any
from typing import NamedTuple
from unittest import mock

import flax
import jax
import numpy as np

from ctxseg_jax.data import packing
from ctxseg_jax.data.datasets import context_scenes
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import step as step_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = "configs/quickstart.py"
STEPS = 12
TIMEOUT = 150  # Seconds until a command counts as hung.

# With this rate a network of 12 steps still predicts many classes, so that
# equal confusion matrices mean something.
OVERRIDES = (
    "--config.total_steps=12",
    "--config.checkpoint_every=4",
    "--config.eval_every=6",
    "--config.log_every=1",
    "--config.model.backbone.channels=8",
    "--config.model.head.channels=8",
    "--config.model.head.num_codewords=4",
    "--config.optim.learning_rate=0.003",
    "--config.eval.num_pictures=1",
    "--config.eval.batch_size_per_device=4",
    "--config.data.eval_split=val[:14]",
)


class Result(NamedTuple):
  """How a command ended."""

  code: int  # Minus the number of the signal that killed it.
  stdout: str
  stderr: str

  @property
  def errors(self) -> list[str]:
    """The lines of standard error that start with `error:`."""
    return [x for x in self.stderr.splitlines() if x.startswith("error:")]


def on_one_device():
  """Returns a context in which runs of this process have one device.

  Programs for the eight of the tests take twice as long to compile.
  """
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), (step_lib.AXIS,))
  return mock.patch.object(step_lib, "make_mesh", lambda: mesh)


@functools.cache
def cache_dir() -> pathlib.Path:
  """Returns the folder that outlives the session; the user's own."""
  path = pathlib.Path(tempfile.gettempdir()) / f"ctxseg_tests_{os.getuid()}"
  path.mkdir(mode=0o700, exist_ok=True)
  if path.stat().st_uid != os.getuid():
    raise PermissionError(f"{path} belongs to another user.")
  return path


@functools.cache
def data_dir() -> str:
  """Returns a folder with context scenes as this source draws them."""
  source = pathlib.Path(context_scenes.__file__).read_bytes()
  path = cache_dir() / f"data_{hashlib.sha256(source).hexdigest()[:12]}"
  packing.ensure_prepared(context_scenes.SPEC, path)  # Holds a lock.
  return str(path)


def train_flags(
    workdir: os.PathLike[str] | str, *flags: str, config: str = CONFIG
) -> list[str]:
  """Returns the flags of the tiny run; later ones win."""
  return [
      f"--config={config}",
      f"--workdir={workdir}",
      f"--config.data.data_dir={data_dir()}",
      *OVERRIDES,
      *flags,
  ]


class Command:
  """A command that runs; killed with its children when the context ends."""

  def __init__(
      self,
      script: str,
      flags: Sequence[str],
      devices: int = 1,
      env: dict[str, str] | None = None,
  ):
    self._files = [tempfile.TemporaryFile() for _ in range(2)]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(cache_dir() / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    self._process = subprocess.Popen(
        [sys.executable, script, *flags],
        stdin=subprocess.DEVNULL,
        stdout=self._files[0],
        stderr=self._files[1],
        cwd=ROOT,
        env=environment | (env or {}),
        start_new_session=True,
    )
    self.pid = self._process.pid

  def __enter__(self) -> "Command":
    return self

  def __exit__(self, *_) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)
    self._process.wait()
    for file in self._files:
      file.close()

  def send(self, number: int) -> None:
    """Sends a signal to the process alone, not to its children."""
    self._process.send_signal(number)

  def ended(self) -> bool:
    return self._process.poll() is not None

  def children(self) -> list[int]:
    """Returns the processes it started, also once it is gone."""
    # Every one is in the session that `Popen` opened for it.
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
      with contextlib.suppress(OSError):  # It ended meanwhile.
        fields = path.read_text().rpartition(")")[2].split()
        if int(fields[3]) == self.pid and int(path.parent.name) != self.pid:
          found.append(int(path.parent.name))
    return found

  def stderr(self) -> str:
    """Returns what it has logged so far."""
    return _read(self._files[1])

  def wait_for(self, happened, timeout: float = TIMEOUT) -> bool:
    """Waits until `happened()`, polling; False if the command ended first."""
    end = time.monotonic() + timeout
    while not happened():
      if self.ended():
        return bool(happened())
      if time.monotonic() > end:
        raise TimeoutError(f"not within {timeout} s; log:\n{self.stderr()}")
      time.sleep(0.01)
    return True

  def wait_for_log(self, text: str) -> bool:
    """Waits until a text is in the log."""
    return self.wait_for(lambda: text in self.stderr())

  def result(self, timeout: float = TIMEOUT) -> Result:
    """Waits for the end."""
    try:
      code = self._process.wait(timeout)
    except subprocess.TimeoutExpired:
      raise TimeoutError(
          f"no end within {timeout} s; log:\n{self.stderr()}"
      ) from None
    return Result(code, _read(self._files[0]), self.stderr())


def _read(file) -> str:
  size = os.fstat(file.fileno()).st_size
  return os.pread(file.fileno(), size, 0).decode(errors="replace")


def run(script: str, *flags: str, **kwargs: Any) -> Result:
  """Runs a command to its end, which has to come in time."""
  with Command(script, flags, **kwargs) as command:
    return command.result()


def train(
    workdir: os.PathLike[str] | str,
    *flags: str,
    config: str = CONFIG,
    **kwargs: Any,
) -> Result:
  """Runs the tiny training to its end."""
  flags = train_flags(workdir, *flags, config=config)
  return run("train.py", *flags, **kwargs)


def start_training(
    workdir: os.PathLike[str] | str, *flags: str, **kwargs
) -> Command:
  """Starts the tiny training."""
  return Command("train.py", train_flags(workdir, *flags), **kwargs)


def free_port() -> int:
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


@functools.cache
def finished_run(devices: int = 1) -> pathlib.Path:
  """Returns an uninterrupted run, trained once per session."""
  directory = tempfile.mkdtemp(prefix="ctxseg_tiny_")
  atexit.register(shutil.rmtree, directory, ignore_errors=True)
  path = pathlib.Path(directory) / "run"
  result = train(path, devices=devices)
  assert result.code == 0, result.stderr
  return path


def copy_finished_run(
    target: os.PathLike[str] | str, step: int | None = None
) -> pathlib.Path:
  """Copies the uninterrupted run, as it was when `step` had been saved."""
  target = pathlib.Path(target)
  shutil.copytree(finished_run(), target)
  if step is not None:
    for path in (target / "checkpoints").iterdir():
      if int(path.name) > step:
        shutil.rmtree(path)
    assert (target / "checkpoints" / str(step)).exists(), "not a step kept"
  return target


def arrays(workdir: pathlib.Path, step: int = STEPS) -> dict[str, np.ndarray]:
  """Returns everything a checkpoint holds, by name: the whole state."""
  state, _ = checkpoint.load(workdir / "checkpoints", step=step)
  assert int(state["step"]) == step, state["step"]
  flat = flax.traverse_util.flatten_dict(state, sep="/")
  return {name: np.asarray(array) for name, array in flat.items()}


def digest(workdir: pathlib.Path, step: int = STEPS) -> str:
  """Returns the SHA-256 of everything a checkpoint holds."""
  total = hashlib.sha256()
  for name, array in sorted(arrays(workdir, step).items()):
    array = np.ascontiguousarray(array)
    total.update(f"{name} {array.dtype} {array.shape}\n".encode())
    total.update(array.tobytes())
  return total.hexdigest()


def losses(workdir: pathlib.Path) -> list[tuple[int, dict[str, float]]]:
  """Returns step and figures of every training line of metrics.jsonl."""
  lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
  wanted = ("loss/", "diagnostics/", "grad_norm", "learning_rate")
  rows = [json.loads(line) for line in lines]
  return [
      (row["step"], {k: v for k, v in row.items() if k.startswith(wanted)})
      for row in rows
      if "loss/total" in row
  ]


def evaluations(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns the evaluations by file name, without how long they took."""
  reports = {}
  for path in sorted((workdir / "eval").glob("*.json")):
    report = json.loads(path.read_text("utf-8"))
    for name in ("images_per_second", "compilations"):
      report.pop(name)
    reports[path.stem] = report
  return reports
