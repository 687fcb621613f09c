r"""Times an evaluation beside the usual loop in PyTorch.

  python -m benchmarks.evaluation --peer_python .peers/bin/python \
      --data_dir data --output runs/evaluation.json

Both sides do the same for every image of a split: read, decode, normalise, pass
forward, upsample the logits, take the largest, count the confusion matrix. The
networks are an FCN on ResNet-18, with as many parameters on both sides, and one
that costs nothing, so that the rest is seen. Whole evaluations alternate; the
peer's are with and without workers, in both layouts of images.
"""

import pathlib
import statistics
import tempfile
import time

from absl import flags
import flax.linen as nn

from benchmarks import peer as peer_lib
from benchmarks import results
from ctxseg_jax import commands
from ctxseg_jax import errors

_R18 = dict(
    backbone=dict(name="resnet", depth=18, stem="7x7", output_stride=32),
    head=dict(name="fcn"),
)
_MEAN, _STD = (127.0,) * 3, (60.0,) * 3
_PEERS = {
    "eager, no workers": dict(mode="eager", num_workers=0),
    "eager, 2 workers": dict(mode="eager", num_workers=2),
    "channels-last, no workers": dict(mode="channels_last", num_workers=0),
    "channels-last, 2 workers": dict(mode="channels_last", num_workers=2),
}


class Nothing(nn.Module):
  """Costs nothing, so that what is timed is all but the network."""

  num_classes: int

  @nn.compact
  def __call__(self, images, *, train, upsample):
    del train, upsample
    bias = self.param("bias", nn.initializers.ones, (self.num_classes,))
    return {"logits": images[:, ::32, ::32, :1] + bias}


class Ours:
  """Evaluations with one network, compiled before the first."""

  def __init__(self, network, spec, source, split):
    import jax
    import jax.numpy as jnp

    from ctxseg_jax import experiment
    from ctxseg_jax.evaluation import procedure
    from ctxseg_jax.evaluation import segmentation
    from ctxseg_jax.training import step

    if network == "none":
      model = Nothing(spec.num_classes)
    else:
      model = experiment.build_model(_R18, spec.num_classes)
    self._predictor = segmentation.Predictor(
        model,
        step.make_mesh(),
        mean=_MEAN,
        std=_STD,
        settings=procedure.Settings(),
    )
    images = jnp.zeros((1, 64, 64, 3))
    self._variables = jax.jit(
        lambda key: model.init(key, images, train=False, upsample=False)
    )(jax.random.key(0))
    self._given = (source, spec, split)
    self.parameters = sum(
        x.size for x in jax.tree.leaves(self._variables["params"])
    )
    self.run()

  def run(self):
    """Returns the seconds of an evaluation, and the pixels it counted.

    `thread_seconds` are those of the processor that the thread took which feeds
    the devices: what an accelerator can wait for.
    """
    from ctxseg_jax.evaluation import evaluate

    source, spec, split = self._given
    start = time.thread_time()
    report, _ = evaluate.evaluate(
        self._predictor, self._variables, source, spec, split=split
    )
    self.thread_seconds = time.thread_time() - start
    seconds = report["num_images"] / report["images_per_second"]
    return seconds, sum(map(sum, report["confusion_matrix"]))


def write_files(source, folder: pathlib.Path) -> None:
  """Writes the examples of a split as the files they were packed from."""
  for i in range(len(source)):
    record = source.record(i)
    for kind in ("image", "label"):
      path = folder / f"{kind}s" / f"{i:06}"
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(record[kind])


def compare(network, spec, source, split, python, num_rounds):
  """Returns a row of the result: seconds of every evaluation by side."""
  ours = Ours(network, spec, source, split)
  with (
      tempfile.TemporaryDirectory() as folder,
      peer_lib.Peer(python, "evaluation_loop") as peer,
  ):
    request = dict(
        folder=folder,
        network=network,
        num_classes=spec.num_classes,
        mean=_MEAN,
        std=_STD,
    )
    write_files(source, pathlib.Path(folder))
    pixels = ours.run()[1]
    seconds = {"ours": []} | {name: [] for name in _PEERS}
    thread_seconds = []
    for _ in range(num_rounds):
      seconds["ours"].append(ours.run()[0])
      thread_seconds.append(ours.thread_seconds)
      for name, options in _PEERS.items():
        answer = peer.ask("evaluate", **request, **options)
        found = (answer["pixels"], answer["parameters"])
        if found != (pixels, ours.parameters) and network != "none":
          raise errors.UserError(
              f"{network}: (pixels, parameters) are {pixels, ours.parameters}"
              f" here and {found} there; times of different work are not"
              " compared"
          )
        seconds[name].append(answer["seconds"])
  return {
      "network": network,
      "images": len(source),
      "parameters": ours.parameters,
      "seconds": seconds,
      "thread_seconds": thread_seconds,
      "peer": {k: answer[k] for k in ("versions", "threads")},
  }


def to_table(rows) -> str:
  """Returns the table that is printed: medians and what they range over."""
  header = ["network", "side", "images/s", "range", "ours is faster by"]
  lines = []
  for row in rows:
    ours = statistics.median(row["seconds"]["ours"])
    for side, seconds in row["seconds"].items():
      rates = [row["images"] / x for x in seconds]
      ratio = statistics.median(seconds) / ours
      lines.append(
          [
              row["network"],
              side,
              f"{statistics.median(rates):.1f}",
              f"{min(rates):.1f} to {max(rates):.1f}",
              f"{ratio:.2f}",
          ]
      )
  return results.table(header, lines)


def main(argv):
  del argv
  from ctxseg_jax.data import records
  from ctxseg_jax.data.datasets import DATASETS

  given = flags.FLAGS
  spec = DATASETS[given.dataset]
  source = records.open_source(spec, given.split, given.data_dir)
  result = {
      "machine": results.machine("opencv-python-headless", "pillow", "grain"),
      "split": given.split,
      "rows": [],
  }
  for network in given.networks:
    row = compare(
        network, spec, source, given.split, given.peer_python, given.rounds
    )
    result["rows"].append(row)
    results.write(given.output, result)
  print(to_table(result["rows"]))
  for row in result["rows"]:
    each = statistics.median(row["thread_seconds"]) / row["images"]
    what = f"{row['network']}: the thread that feeds devices takes"
    print(f"{what} {1e3 * each:.1f} ms an image")


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_string("peer_python", None, "A Python that has PyTorch.")
  flags.DEFINE_string("dataset", "camvid", "A prepared data set.")
  flags.DEFINE_string("data_dir", "data", "Folder of all prepared data sets.")
  flags.DEFINE_string("split", "test", "What is evaluated.")
  flags.DEFINE_list("networks", ["r18", "none"], "r18, none or both.")
  flags.DEFINE_integer("rounds", 5, "Of evaluations by turns.", lower_bound=1)
  flags.DEFINE_string("output", None, "JSON file to write.")
  flags.mark_flags_as_required(["peer_python", "output"])
  commands.run(main)
