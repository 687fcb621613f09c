"""What benchmarks write down: the machine, a table, a file."""

from collections.abc import Mapping
from collections.abc import Sequence
from importlib import metadata
import json
import os
import pathlib
import platform
from typing import Any

from ctxseg_jax import files


def machine(*packages: str) -> dict[str, Any]:
  """Returns what figures depend on: processor, device, packages' versions."""
  import jax

  device = jax.devices()[0]
  return {
      "processor": _processor(),
      "cores": len(os.sched_getaffinity(0)),
      "device": device.device_kind,
      "platform": device.platform,
      "xla_flags": os.environ.get("XLA_FLAGS", ""),
      "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
      "python": platform.python_version(),
      "versions": {
          name: metadata.version(name)
          for name in ("jax", "jaxlib", "flax", "numpy", *packages)
      },
  }


def _processor() -> str:
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor()
  found = dict(line.split(":", 1) for line in lines if ":" in line)
  found = {key.strip(): value.strip() for key, value in found.items()}
  return found.get("model name", platform.processor())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a table in Markdown; all but the first column to the right."""
  lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(path: str, result: Mapping[str, Any]) -> None:
  """Writes a result as JSON; folders are made."""
  path = files.local_path(path, "--output")
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(result, indent=1) + "\n")
