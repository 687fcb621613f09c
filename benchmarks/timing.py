"""Times of several sides that work by turns, and what is told of them."""

from collections.abc import Callable
from collections.abc import Mapping
import statistics
from typing import Any

from absl import flags

from benchmarks import networks

# What a peer may do to be fast; see `peers.server.Peer`.
MODES = ("eager", "channels_last", "compile", "compile_network")
# Behind a mode: with the C library's own settings, as PyTorch comes. Else a
# peer has those of our commands, `commands.set_up_memory`.
DEFAULT_MEMORY = "_default_memory"

# Runs a number of steps and returns the seconds they took.
RunSteps = Callable[[int], float]


def define_flags() -> None:
  """Defines what says which networks are compared, and with whom."""
  flags.DEFINE_string("peer_python", None, "A Python that has PyTorch.")
  flags.DEFINE_list(
      "networks", sorted(networks.NETWORKS), "Names of benchmarks.networks."
  )
  flags.DEFINE_list(
      "modes",
      list(MODES),
      "What PyTorch does to be fast; with"
      f" {DEFAULT_MEMORY} behind it, with the C library's own settings.",
  )
  flags.DEFINE_integer(
      "rounds", 5, "Of blocks by turns; 0 checks equality only.", lower_bound=0
  )
  flags.DEFINE_float("block_seconds", 1.0, "Seconds of a block, about.")
  flags.DEFINE_string("output", None, "JSON file to write.")
  flags.mark_flags_as_required(["peer_python", "output"])


def alternate(
    sides: Mapping[str, RunSteps], rounds: int, block_seconds: float
) -> dict[str, list[float]]:
  """Returns the seconds per step of each side, a value for each round.

  In a round each side runs a block of steps, about `block_seconds` long, after
  one that is not counted. That one may take three times as long: virtual
  machines give memory away that nobody has used for a while.
  """
  steps = {}
  for name, run in sides.items():
    steps[name] = max(1, round(block_seconds / run(1)))
  found = {name: [] for name in sides}
  for _ in range(rounds):
    for name, run in sides.items():
      run(1)
      found[name].append(run(steps[name]) / steps[name])
  return found


def compare(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
  """Returns how many times as fast `"ours"` is as the fastest other side.

  Sides are compared within a round, as machines drift: `ratio` is the median
  of the rounds, `ratio_range` their least and largest.
  """
  ratios = {
      mode: [b / a for a, b in zip(seconds["ours"], theirs, strict=True)]
      for mode, theirs in seconds.items()
      if mode != "ours"
  }
  best = min(ratios, key=lambda mode: statistics.median(ratios[mode]))
  return {
      "best_peer": best,
      "ratio": statistics.median(ratios[best]),
      "ratio_range": [min(ratios[best]), max(ratios[best])],
  }


# Of the columns of `cells`.
HEADER = ["ours", "best PyTorch", "times as fast (rounds)"]


def cells(row: Mapping[str, Any]) -> list[str]:
  """Returns what a table tells of a row with `"seconds"` and `compare`."""
  if "seconds" not in row:
    return ["", "", "not timed"]
  best = row["best_peer"]
  ours, theirs = (
      f"{1e3 * statistics.median(row['seconds'][side]):.0f} ms"
      for side in ("ours", best)
  )
  low, high = row["ratio_range"]
  ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
  return [ours, f"{theirs}, {best}", ratio]
