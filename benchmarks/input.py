r"""Counts the training images that one core decodes and augments in a second.

  python -m benchmarks.input --data_dir data --workdirs runs/camvid \
      --output runs/input.json

Ours is the stream of batches that training takes, with one affine warp on the
host, and with the warp left to the device; beside it are pipelines in the style
of torchvision and mmsegmentation (`peers/input_pipelines.py`). All scale by 0.5
to 2, mirror and crop. The images are CamVid's, if it is prepared in `data_dir`,
and noise of 1024x2048 as JPEG and as PNG. Seconds are those of the processor,
on one core; blocks alternate.

Of the work dirs it prints the share of time that training waited for data.
"""

import collections
import itertools
import json
import os
import pathlib
import statistics
import time

from absl import flags
import cv2
import numpy as np

from benchmarks import results
from benchmarks.peers import input_pipelines
from ctxseg_jax import commands

_BATCH_SIZE = 8
_NUM_LARGE, _LARGE = 8, (1024, 2048)
_PEERS = {
    "torchvision style": input_pipelines.torchvision,
    "mmsegmentation style": input_pipelines.mmsegmentation,
}


class Files:
  """Encoded examples in memory, decoded on access as prepared ones are."""

  def __init__(self, records):
    self.records = records

  def __len__(self):
    return len(self.records)

  def __getitem__(self, i):
    from ctxseg_jax.data import images
    from ctxseg_jax.data import label_png

    image, label = self.records[i]
    return {
        "image": images.decode_image(image, verify=False),
        "label": label_png.decode(label, "label"),
    }


def make_large(encode):
  """Returns pairs of encoded images and labels of `_LARGE`."""
  from ctxseg_jax.data import label_png

  rng = np.random.default_rng(0)
  size = _LARGE[::-1]
  pairs = []
  for _ in range(_NUM_LARGE):
    areas = rng.integers(0, 256, (32, 64, 3)).astype(np.float32)
    image = cv2.resize(areas, size, interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 4, image.shape).astype(np.float32)
    label = cv2.resize(
        rng.integers(0, 19, (16, 32), np.uint8),
        size,
        interpolation=cv2.INTER_NEAREST,
    )
    image = np.clip(image, 0, 255).astype(np.uint8)
    pairs.append((encode(image), label_png.encode(label)))
  return pairs


def cases(data_dir):
  """Yields name, (H, W), source, its encoded pairs and the crop's (H, W)."""
  from ctxseg_jax import errors
  from ctxseg_jax.data import images
  from ctxseg_jax.data import records
  from ctxseg_jax.data.datasets import DATASETS

  try:
    source = records.open_source(DATASETS["camvid"], "train", data_dir)
  except errors.UserError as e:
    print(f"without CamVid: {e}")
  else:
    stored = map(source.record, range(len(source)))
    pairs = [(x["image"], x["label"]) for x in stored]
    yield "CamVid", (360, 480), source, pairs, (360, 360)
  for name, encode in (
      ("JPEG", images.encode_jpeg),
      ("PNG", images.encode_png),
  ):
    pairs = make_large(encode)
    yield name, _LARGE, Files(pairs), pairs, (512, 1024)


def streams(source, pairs, size, crop_size):
  """Returns endless streams, by side; an item is of `_BATCH_SIZE` images."""
  from ctxseg_jax.data import pipeline
  from ctxseg_jax.data import transforms

  augmentation = transforms.Augmentation(
      crop_size, scale_range=input_pipelines.SCALES, flip=True
  )
  ours = {
      "ours, warped on the host": augmentation,
      "ours, warped on the device": transforms.Unwarped(augmentation, size),
  }
  found = {
      name: pipeline.train_batches(source, x, batch_size=_BATCH_SIZE, seed=0)
      for name, x in ours.items()
  }

  def batches(peer):
    rng = np.random.default_rng(0)
    order = itertools.cycle(pairs)
    while True:
      batch = [peer(*next(order), crop_size, rng) for _ in range(_BATCH_SIZE)]
      yield [np.stack(arrays) for arrays in zip(*batch, strict=True)]

  return found | {name: batches(peer) for name, peer in _PEERS.items()}


def measure(sides, num_rounds, block_seconds):
  """Returns images per second of the processor, a value for each round."""
  rates = {name: [] for name in sides}
  for stream in sides.values():
    next(stream)
  for _ in range(num_rounds):
    for name, stream in sides.items():
      images, start = 0, time.process_time()
      while (seconds := time.process_time() - start) < block_seconds:
        next(stream)
        images += _BATCH_SIZE
      rates[name].append(images / seconds)
  return rates


def data_wait(workdir):
  """Returns the mean share of time that a training waited for data."""
  lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
  shares = [json.loads(line).get("data_wait_share") for line in lines]
  return statistics.mean(x for x in shares if x is not None)


def to_table(rows):
  """Returns the table that is printed: medians, and the range of rounds."""
  header = ["images", "size", "pipeline", "images/s per core", "range"]
  lines = [
      [
          row["name"],
          "{}x{}".format(*row["size"]),
          side,
          f"{statistics.median(rates):.0f}",
          f"{min(rates):.0f} to {max(rates):.0f}",
      ]
      for row in rows
      for side, rates in row["images_per_second"].items()
  ]
  return results.table(header, lines)


def main(argv):
  del argv
  given = flags.FLAGS
  cv2.setNumThreads(0)
  machine = results.machine("opencv-python-headless", "pillow", "grain")
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  result = collections.defaultdict(list, machine=machine)
  for workdir in given.workdirs:
    share = data_wait(workdir)
    result["data_wait"].append({"workdir": workdir, "share": share})
    print(f"{workdir}: {share:.1%} of the time waiting for data")
  for name, size, source, pairs, crop_size in cases(given.data_dir):
    sides = streams(source, pairs, size, crop_size)
    rates = measure(sides, given.rounds, given.block_seconds)
    row = dict(name=name, size=size, crop=crop_size, images_per_second=rates)
    result["rows"].append(row)
    results.write(given.output, result)
  print(to_table(result["rows"]))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_string("data_dir", "data", "Folder of all prepared data sets.")
  flags.DEFINE_list("workdirs", [], "Work dirs of trainings.")
  flags.DEFINE_integer("rounds", 5, "Of blocks by turns.", lower_bound=1)
  flags.DEFINE_float("block_seconds", 1.0, "Seconds of a block, about.")
  flags.DEFINE_string("output", None, "JSON file to write.")
  flags.mark_flags_as_required(["output"])
  commands.run(main)
