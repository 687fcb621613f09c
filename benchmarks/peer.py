"""The other side of a comparison: a process that has PyTorch."""

import contextlib
import json
import os
import subprocess
from typing import Any

from ctxseg_jax import errors


class Peer:
  """A process of a module of `peers`; a context manager that ends it."""

  def __init__(
      self, python: str, module: str = "server", *, default_memory: bool = False
  ):
    """Starts the process, with or without `commands.set_up_memory`."""
    self._python = python
    environment = dict(os.environ)
    if default_memory:
      environment.pop("GLIBC_TUNABLES", None)
    try:
      self._process = subprocess.Popen(
          [python, "-m", f"benchmarks.peers.{module}"],
          env=environment,
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          text=True,
      )
    except OSError as e:
      raise errors.UserError(
          f"--peer_python: cannot run {python} ({e.strerror}); name a Python"
          " that has PyTorch"
      ) from e

  def ask(self, action: str, **request: Any) -> dict[str, Any]:
    """Returns the answer to a request, which may be `{"error": ...}`.

    Raises:
      UserError: The process ended.
    """
    try:
      self._process.stdin.write(json.dumps({"do": action} | request) + "\n")
      self._process.stdin.flush()
      answer = self._process.stdout.readline()
    except BrokenPipeError:
      answer = ""
    if not answer:
      raise errors.UserError(
          f"--peer_python: {self._python} stopped at {action!r} with code"
          f" {self._process.wait()}; what it said is above. It needs PyTorch"
      )
    return json.loads(answer)

  def __enter__(self) -> "Peer":
    return self

  def __exit__(self, *error: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # It ended before.
      self._process.stdin.close()
    self._process.wait()
