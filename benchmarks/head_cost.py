r"""Times what each context head adds to the training step of an FCN.

  python -m benchmarks.head_cost --output runs/head_cost.json

Every head has its default options, on the same ResNet at output stride 8 and
without an auxiliary head. Blocks of its steps and of the FCN's alternate, and a
cost is that of two blocks of the same round, as machines drift: the median of
the rounds, and their range.
"""

import statistics
from typing import Any

from absl import flags

from benchmarks import networks
from benchmarks import results
from benchmarks import sizes
from benchmarks import timing
from ctxseg_jax import commands
from ctxseg_jax import experiment


def start(head: str, depth: int, shape: networks.Shape) -> tuple[dict, Any]:
  """Returns what is known of a network, and a function that runs its steps."""
  from benchmarks import ours

  config = networks.with_head(head, depth, shape)
  side = ours.Side(experiment.parse(config))
  size = sizes.size(config)
  row = {"head": head, "parameters": size.parameters, "macs": size.macs}
  return row, lambda steps: side.train(steps)["seconds"]


def to_table(rows: list[dict[str, Any]]) -> str:
  """Returns the table that is printed."""
  lines = []
  for row in rows:
    times = row["times_fcn"]
    lines.append(
        [
            f"`{row['head']}`",
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['macs'] / 1e9:.1f} G",
            f"{1e3 * statistics.median(row['seconds']):.0f} ms",
            f"{statistics.median(times):.2f} ({min(times):.2f} to"
            f" {max(times):.2f})",
        ]
    )
  header = ["head", "parameters", "MACs", "step", "times the FCN's (rounds)"]
  return results.table(header, lines)


def main(argv):
  del argv
  given = flags.FLAGS
  networks.check_names("heads", given.heads, networks.HEADS)
  shape = networks.Shape((given.size,) * 2, given.batch, given.dtype)
  fcn, run_fcn = start("fcn", given.depth, shape)
  run_fcn(1)  # Compiles.
  result = {
      "machine": results.machine(),
      "network": shape._asdict() | {"depth": given.depth},
      "rows": [],
  }
  for head in given.heads:
    row, run = (
        (fcn, run_fcn) if head == "fcn" else start(head, given.depth, shape)
    )
    seconds = timing.alternate(
        {"fcn": run_fcn, head: run}, given.rounds, given.block_seconds
    )
    pairs = zip(seconds[head], seconds["fcn"], strict=True)
    result["rows"].append(
        row | {"seconds": seconds[head], "times_fcn": [a / b for a, b in pairs]}
    )
    results.write(given.output, result)
    print(to_table(result["rows"][-1:]), flush=True)
  print(to_table(result["rows"]))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_list("heads", list(networks.HEADS), "Names of `model.head`.")
  flags.DEFINE_integer("depth", 50, "Layers of the ResNet.")
  flags.DEFINE_integer("size", 224, "Side of the images.", lower_bound=32)
  flags.DEFINE_integer("batch", 2, "Images.", lower_bound=1)
  flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of compute.")
  flags.DEFINE_integer("rounds", 3, "Of blocks by turns.", lower_bound=1)
  flags.DEFINE_float("block_seconds", 1.0, "Seconds of a block, about.")
  flags.DEFINE_string("output", None, "JSON file to write.")
  flags.mark_flag_as_required("output")
  commands.run(main)
