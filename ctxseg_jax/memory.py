"""Refuses programs that need more memory than there is."""

from collections.abc import Callable
import math
from typing import Any

import jax

from ctxseg_jax import errors


def require(
    num_bytes: int, what: str, remedy: str, free: float | None = None
) -> None:
  """Raises a `UserError` if a number of bytes is more than are free.

  The kernel would grant them and kill the process when they are used.

  Args:
    num_bytes: What is needed.
    what: What needs it, for the message.
    remedy: What to do about it, for the message.
    free: How many bytes there are; None is what this machine has.
  """
  free = free_host_bytes() if free is None else free
  if num_bytes > free:
    raise errors.UserError(
        f"{what}: needs {num_bytes / 1e9:,.1f} GB of memory, there are"
        f" {free / 1e9:,.1f} GB free; {remedy}"
    )


def compile_within(
    function: Callable[..., Any],
    *args: Any,
    devices: list[jax.Device],
    what: str,
    remedy: str,
) -> jax.stages.Compiled:
  """Compiles a `jax.jit` function for arguments that are in memory already.

  Raises a `UserError`, as `require` does, if its results and what it holds in
  between need more memory than the devices of this process have.
  """
  try:
    program = function.lower(*args).compile()
  except jax.errors.JaxRuntimeError as e:
    _, found, reason = str(e).partition("RESOURCE_EXHAUSTED: ")
    if not found:
      raise
    raise errors.UserError(f"{what}: {reason.splitlines()[0]}; {remedy}") from e
  needed = program_bytes(program)
  if needed is not None:
    if devices[0].platform == "cpu":  # They are parts of one machine.
      require(needed * len(devices), what, remedy)
    elif stats := devices[0].memory_stats():
      free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
      require(needed, what, remedy, free)
  return program


def program_bytes(program: jax.stages.Compiled) -> int | None:
  """Returns what a program needs per device beyond its arguments.

  It is None where the backend does not say.
  """
  usage = program.memory_analysis()
  if usage is None:
    return None
  needed = usage.temp_size_in_bytes + usage.output_size_in_bytes
  return needed - usage.alias_size_in_bytes


def device_bytes(device: jax.Device) -> float | None:
  """Returns the memory of an accelerator; None if it has none of its own.

  It is infinite where the backend does not say.
  """
  if device.platform == "cpu":
    return None
  return (device.memory_stats() or {}).get("bytes_limit", math.inf)


def free_host_bytes() -> float:
  """Returns the free memory of the machine, infinite where it is unknown."""
  try:
    with open("/proc/meminfo", encoding="ascii") as file:
      found = dict(line.split(":") for line in file)
  except OSError:
    return math.inf
  return sum(
      int(found[name].split()[0]) << 10 for name in ("MemAvailable", "SwapFree")
  )
