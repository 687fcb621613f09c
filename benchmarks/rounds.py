"""What input and evaluation benchmarks tell beside their figures."""

from collections.abc import Mapping
from collections.abc import Sequence
from importlib import metadata
import json
import os
import pathlib
import platform
from typing import Any

from ctxseg_jax import files


def machine() -> dict[str, Any]:
  """Returns what the figures depend on: processor, cores and versions."""
  lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  names = [x.partition(":")[2].strip() for x in lines if "model name" in x]
  packages = ("jaxlib", "numpy", "opencv-python-headless", "pillow", "grain")
  return {
      "processor": (names or [platform.processor()])[0],
      "cores": len(os.sched_getaffinity(0)),
      "python": platform.python_version(),
      "versions": {name: metadata.version(name) for name in packages},
  }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a table in Markdown."""
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(path: str, result: Mapping[str, Any]) -> None:
  """Writes a result as JSON; folders are made."""
  path = files.local_path(path, "--output")
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(result, indent=1) + "\n")
