r"""Times how long `train.py` takes to its first step.

  python -m benchmarks.startup --networks encnet_r50,quickstart \
      --output runs/startup.json

Runs `train.py` on the embedded data set with an empty cache of compiled
programs ("cold"), and then with what it left there ("warm"), each time in a
work dir of its own, and ends it once the first step is logged. Seconds are from
the start of the process, as its own log tells: until the devices are known
(imports, the config), until the network is initialised, until the step is
compiled or found in the cache, and until the first step is done.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import results
from ctxseg_jax import commands
from ctxseg_jax import errors

# What `train.py` logs at the end of each phase.
_PHASES = {
    "imports": "Devices: ",
    "initialised": " parameters",
    "compiled": "Compiled the training step",
}


def run(config: str, cache: str) -> dict[str, float]:
  """Returns the seconds from the start of `train.py` to the end of each phase.

  Args:
    config: As `--config`.
    cache: Folder of compiled programs.

  Raises:
    UserError: It ended before the first step.
  """
  environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
  # Those that this command was given or chose itself.
  for name in ("XLA_FLAGS", "GLIBC_TUNABLES"):
    environment.pop(name, None)
  with tempfile.TemporaryDirectory() as folder:
    metrics = pathlib.Path(folder, "run", "metrics.jsonl")
    log = pathlib.Path(folder, "log")
    arguments = [f"--config={config}", f"--workdir={metrics.parent}"]
    start = time.perf_counter()
    with log.open("w") as output:
      process = subprocess.Popen(
          [sys.executable, "train.py", *arguments],
          stdout=output,
          stderr=subprocess.STDOUT,
          env=environment,
      )
    seconds = {}
    try:
      while "first_step" not in seconds:
        done = process.poll() is not None
        text, now = log.read_text(), time.perf_counter() - start
        for phase, mark in _PHASES.items():
          if mark in text:
            seconds.setdefault(phase, now)
        if metrics.exists() and metrics.stat().st_size:
          seconds["first_step"] = now
        elif done:
          raise errors.UserError(
              f"train.py --config={config} ended with code"
              f" {process.returncode} before its first step:"
              f" {text.strip().splitlines()[-1:]}"
          )
        time.sleep(0.02)
    finally:
      process.kill()
      process.wait()
  return seconds


def measure(name: str, rounds: int) -> dict[str, Any]:
  """Returns a row of the JSON file: cold once, warm so many times."""
  config = f"benchmarks/startup_config.py:{name}"
  with tempfile.TemporaryDirectory() as cache:
    runs = {"cold": [run(config, cache)]}
    runs["warm"] = [run(config, cache) for _ in range(rounds)]
  return {"network": name, "runs": runs}


def to_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the table that is printed: seconds since the start, medians."""
  phases = [*_PHASES, "first_step"]
  lines = []
  for row in rows:
    for cache, runs in row["runs"].items():
      cells = []
      for phase in phases:
        values = [x[phase] for x in runs]
        cells.append(f"{statistics.median(values):.1f}")
      spread = f"{min(values):.1f} to {max(values):.1f}"
      lines.append([row["network"], cache, *cells, spread])
  header = ["network", "cache", *(x.replace("_", " ") for x in phases)]
  return results.table([*header, "first step of the runs"], lines)


def main(argv):
  del argv
  given = flags.FLAGS
  rows = [measure(name, given.rounds) for name in given.networks]
  results.write(given.output, {"machine": results.machine(), "rows": rows})
  print(to_table(rows))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_list(
      "networks", ["encnet_r50", "quickstart"], "Of benchmarks.networks."
  )
  flags.DEFINE_integer("rounds", 3, "Warm starts.", lower_bound=1)
  flags.DEFINE_string("output", None, "JSON file to write.")
  flags.mark_flags_as_required(["output"])
  commands.run(main)
