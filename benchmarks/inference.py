r"""Times predictions beside the same networks in PyTorch.

  python -m benchmarks.inference --peer_python .peers/bin/python \
      --networks encnet_r50,deeplabv3plus_lite0 --output runs/inference.json

Both sides have the same weights and start from the same images of 0 to 255, and
end with a class per pixel of each on the host: of whole images one by one
("latency"), of whole images together ("batch"), and of an image in windows that
overlap by a third ("windows"). Ours is the predictor of `eval.py` and
`predict.py`. The classes have to be the same at nearly all pixels before
anything is timed; then blocks of predictions alternate.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import time
from typing import Any

from absl import flags
import numpy as np

from benchmarks import networks
from benchmarks import results
from benchmarks import timing
from ctxseg_jax import commands
from ctxseg_jax import errors

# Of the pixels; ties of logits may be broken otherwise.
_EQUAL_SHARE = 0.995


def measure(
    name: str,
    shape: networks.Shape,
    window: int,
    peer_python: str,
    modes: Sequence[str],
    *,
    rounds: int,
    block_seconds: float,
) -> list[dict[str, Any]]:
  """Times a network in each case; see `pair.start`.

  Raises:
    UserError: The peer does not run, or predicts other classes.
  """
  from benchmarks import ours
  from benchmarks import pair as pair_lib
  from ctxseg_jax.evaluation import procedure

  cases = {
      "latency": (1, {}),
      "batch": (shape.batch, {}),
      "windows": (1, dict(window=window, stride=window * 2 // 3)),
  }
  rows = []
  with pair_lib.start(name, shape, peer_python, modes, train=False) as pair:
    side = pair.side
    images = list(ours.make_batch(side.run)["image"])
    for case, (number, windows) in cases.items():
      settings = procedure.Settings(
          mode="slide" if windows else "whole",
          crop_size=(window, window) if windows else None,
          batch_size_per_device=number,
          memory_gb=16.0,
      )
      predictor = side.run.predictor(side.mesh, settings)

      def predict(steps, predictor=predictor, number=number):
        start = time.perf_counter()
        for _ in range(steps):
          predictor.predict(side.variables, images[:number])
        return time.perf_counter() - start

      found = np.stack(predictor.predict(side.variables, images[:number]))
      sides, equal = {"ours": predict}, {}
      for mode, peer in pair.peers.items():
        request = dict(images=number, **windows)
        answer = peer.ask("predict", steps=1, classes=True, **request)
        if "error" in answer:
          raise errors.UserError(f"{name}, {mode}: {answer['error']}")
        equal[mode] = np.mean(found == np.array(answer["classes"]))
        if not (equal[mode] >= _EQUAL_SHARE and len(np.unique(found)) > 1):
          raise errors.UserError(
              f"{name}, {mode}, {case}: {equal[mode]:.2%} of the pixels have"
              f" the same class, expected {_EQUAL_SHARE:.1%} of several"
              " classes; times of different work are not compared"
          )
        sides[mode] = lambda steps, peer=peer, request=request: peer.ask(
            "predict", steps=steps, **request
        )["seconds"]
      rows.append(pair.row | {"case": case, "batch": number, **windows})
      rows[-1]["equal_pixels"] = equal
      if rounds:
        seconds = timing.alternate(sides, rounds, block_seconds)
        rows[-1] |= {"seconds": seconds} | timing.compare(seconds)
  return rows


def to_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the table that is printed, of medians over the rounds."""
  header = ["network", "case", "images", *timing.HEADER]
  lines = []
  for row in rows:
    height, width = row["size"]
    images = f"{row['batch']} of {height}x{width}"
    if "window" in row:
      images += f", windows {row['window']}x{row['window']}"
    lines.append([row["network"], row["case"], images, *timing.cells(row)])
  return results.table(header, lines)


def main(argv):
  del argv

  given = flags.FLAGS
  result = {"machine": results.machine(), "rows": []}
  networks.check_names("networks", given.networks, networks.NETWORKS)
  for name in given.networks:
    shape = networks.Shape(tuple(map(int, given.size)), given.batch)
    result["rows"] += measure(
        name,
        shape,
        given.window,
        given.peer_python,
        given.modes,
        rounds=given.rounds,
        block_seconds=given.block_seconds,
    )
    results.write(given.output, result)
  print(to_table(result["rows"]))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  timing.define_flags()
  flags.DEFINE_list("size", ["360", "480"], "H,W of the images.")
  flags.DEFINE_integer("batch", 4, "Images of a batch.", lower_bound=1)
  flags.DEFINE_integer("window", 240, "Side of the windows.", lower_bound=1)
  commands.run(main)
