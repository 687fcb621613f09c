r"""Times training steps beside the same networks in PyTorch.

  python -m benchmarks.train_step --peer_python .peers/bin/python \
      --networks encnet_r50,quickstart --sizes 128,224 --output runs/steps.json

Both sides have the same weights and the same batch, and do the same: images
from 0 to 255 are normalised and passed forward; cross-entropy of upsampled
logits without ignored pixels, the auxiliary losses, backward, SGD with momentum
and weight decay. Before anything is timed the numbers of parameters have to be
equal, and within tolerances the loss of the first step and the norm of its
gradient. (Later losses need not: on noise, a network with random weights
amplifies rounding, and PyTorch's own modes differ.) Then blocks of steps
alternate. Our step is the one that `train.py` compiles, with the same flags of
the compiler.

`--peer_python` is a Python that has PyTorch and mmsegmentation (see
`benchmarks/peers/mmsegmentation.py`); without the latter the peers are
torchvision's networks, and plain ones that are written here.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import networks
from benchmarks import results
from benchmarks import timing
from ctxseg_jax import commands
from ctxseg_jax import errors

# Relative differences. In half precision a network with random weights has
# other gradients for each way of rounding; that the work is equal is seen in
# float32.
_TOLERANCES = {
    "float32": {"loss": 1e-4, "grad_norm": 1e-2},
    "bfloat16": {"loss": 5e-2},
}


def measure(
    name: str,
    shape: networks.Shape,
    peer_python: str,
    modes: Sequence[str],
    *,
    rounds: int,
    block_seconds: float,
) -> dict[str, Any]:
  """Times a network on both sides; see `pair.start`.

  Returns:
    A row of the JSON file. A mode of the peer that fails, for too little memory
    or other results than ours, is under `"failed"` with its reason.

  Raises:
    UserError: The peer does not run, or none of its modes does the same work.
  """
  from benchmarks import pair as pair_lib

  with pair_lib.start(name, shape, peer_python, modes) as pair:
    side, row = pair.side, pair.row
    first = {"ours": side.train(1)}
    row |= {"first_step": first, "failed": {}}
    row["compile_seconds"] = side.compile_seconds
    for mode, peer in pair.peers.items():
      first[mode] = answer = peer.ask("train", steps=1)
      try:
        if "error" in answer:
          raise errors.UserError(f"{name}, {mode}: {answer['error']}")
        for key, tolerance in _TOLERANCES[row["dtype"]].items():
          pair_lib.require_equal(
              f"{name}, {mode}: {key}",
              first["ours"][key],
              answer[key],
              tolerance,
          )
      except errors.UserError as e:
        row["failed"][mode] = str(e)
    if len(row["failed"]) == len(pair.peers):
      raise errors.UserError("; ".join(row["failed"].values()))
    if not rounds:
      return row

    def train(peer, steps):
      return peer.ask("train", steps=steps)["seconds"]

    running = {k: x for k, x in pair.peers.items() if k not in row["failed"]}
    sides = {"ours": lambda steps: side.train(steps)["seconds"]}
    for mode, peer in running.items():
      sides[mode] = lambda steps, peer=peer: train(peer, steps)
    row["seconds"] = timing.alternate(sides, rounds, block_seconds)
    row |= timing.compare(row["seconds"])
    row["cost"] = side.cost()
    row["peak_bytes"] = side.peak_bytes()
    row["peer_peak_bytes"] = {
        mode: peer.ask("peak_bytes")["bytes"] for mode, peer in running.items()
    }
  return row


def to_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the table that is printed, of medians over the rounds."""
  lines = []
  for row in rows:
    height, width = row["size"]
    images = f"{row['batch']} of {height}x{width}, {row['dtype']}"
    lines.append([row["network"], images, *timing.cells(row)])
  failed = [x for row in rows for x in row["failed"].values()]
  table = results.table(["network", "images", *timing.HEADER], lines)
  return "\n".join([table, *(f"left out: {x}" for x in failed)])


def main(argv):
  del argv

  given = flags.FLAGS
  result = {"machine": results.machine(), "rows": []}
  networks.check_names("networks", given.networks, networks.NETWORKS)
  for name in given.networks:
    own = name in networks.OWN_SIZE
    for size in [None] if own else map(int, given.sizes):
      shape = networks.Shape(
          size and (size, size),
          given.batch,
          given.dtype,
          given.remat,
          given.num_chunks,
      )
      row = measure(
          name,
          shape,
          given.peer_python,
          given.modes,
          rounds=given.rounds,
          block_seconds=given.block_seconds,
      )
      result["rows"].append(row)
      results.write(given.output, result)
      print(to_table([row]), flush=True)
  print(to_table(result["rows"]))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  timing.define_flags()
  flags.DEFINE_list("sizes", ["128", "224"], "Sides of the images.")
  flags.DEFINE_integer("batch", 2, "Images.", lower_bound=1)
  flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of both.")
  flags.DEFINE_enum(
      "remat", "none", ["none", "conv", "block"], "What our backbone keeps."
  )
  flags.DEFINE_integer("num_chunks", 1, "Parts of our loss.", lower_bound=1)
  commands.run(main)
