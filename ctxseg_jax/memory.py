"""How much memory there is, and programs that need more than that."""

from collections.abc import Callable
import math
from typing import Any

import jax

from ctxseg_jax import errors


def require(num_bytes: int, what: str, remedy: str) -> None:
  """Refuses what needs more than the free memory of this machine.

  The kernel would grant it and kill the process when it is used.

  Raises:
    UserError: There is less; `what` needs it, and `remedy` is what to do.
  """
  free = _free_host_bytes()
  if free is not None and num_bytes > free:
    raise _refusal(num_bytes, free, what, remedy)


def compile_within(
    function: Callable[..., Any],
    *args: Any,
    devices: list[jax.Device],
    what: str,
    remedy: str,
) -> jax.stages.Compiled:
  """Compiles a function for arguments, and refuses what will not fit.

  Args:
    function: A `jax.jit` function.
    *args: Its arguments, which are in memory already.
    devices: The devices of this process that it will run on.
    what: What needs the memory, for the message.
    remedy: What to do about it, for the message.

  Raises:
    UserError: Its results and what it holds in between need more memory than
      the devices have.
  """
  try:
    program = function.lower(*args).compile()
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    reason = str(e).partition("RESOURCE_EXHAUSTED: ")[2].splitlines()[0]
    raise errors.UserError(f"{what}: {reason}; {remedy}") from e
  usage = program.memory_analysis()
  if usage is None:  # Not every backend tells.
    return program
  needed = usage.temp_size_in_bytes + usage.output_size_in_bytes
  needed -= usage.alias_size_in_bytes
  if devices[0].platform == "cpu":
    # They are parts of one machine.
    require(needed * len(devices), what, remedy)
    return program
  stats = devices[0].memory_stats() or {}
  free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
  if needed > free:
    raise _refusal(needed, free, what, remedy)
  return program


def _refusal(
    needed: float, free: float, what: str, remedy: str
) -> errors.UserError:
  return errors.UserError(
      f"{what}: needs {needed / 1e9:,.1f} GB of memory, there are"
      f" {free / 1e9:,.1f} GB free; {remedy}"
  )


def _free_host_bytes() -> int | None:
  """Returns the free memory of the machine, or None where it is not told."""
  try:
    with open("/proc/meminfo", encoding="ascii") as file:
      rows = (line.replace(":", " ").split() for line in file)
      found = {row[0]: int(row[1]) * 1024 for row in rows}
  except OSError:
    return None
  free = [found["MemAvailable"] + found.get("SwapFree", 0)]
  # A container's limit; version 2 and version 1 of the kernel's interface.
  for limit, usage in (
      ("memory.max", "memory.current"),
      ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
  ):
    values = [_read_number(f"/sys/fs/cgroup/{x}") for x in (limit, usage)]
    if None not in values:
      free.append(values[0] - values[1])
  return max(min(free), 0)


def _read_number(path: str) -> int | None:
  try:
    with open(path, encoding="ascii") as file:
      return int(file.read())
  except (OSError, ValueError):  # "max" is no limit.
    return None
