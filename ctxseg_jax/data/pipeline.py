"""Prepared datasets as sources, and sources as streams of training batches.

The global batch of step k is a pure function of (seed, k): order and
augmentation derive from the seed and the position in the stream, never from a
worker or a host. So a run resumes from its step number alone, at once, and with
any number of workers and processes.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import itertools
import os
from typing import Any
from typing import Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds

from ctxseg_jax import errors
from ctxseg_jax.data import images
from ctxseg_jax.data import prepare
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data import workers

# Returns {"image": uint8 [h, w, 3], "label": uint8 [h, w] or []} of fixed size.
Augment = Callable[
    [Mapping[str, Any], np.random.Generator], dict[str, np.ndarray]
]


class ExampleSource(Protocol):
  """What `train_batches` reads from; it has to be picklable for workers."""

  def __len__(self) -> int:
    ...

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    """Returns `"image"` uint8 [H, W, 3] and `"label"` uint8 [H, W] or []."""


class Source:
  """Random access to a prepared split, decoding on access."""

  def __init__(self, records: Any, title: str):
    """Wraps a tfds data source.

    Args:
      records: Sequence of dicts with encoded `"image"`, `"label"` (an encoded
        map or a class) and `"name"`.
      title: What to call the split in messages.
    """
    self._records = records
    self._title = title

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Returns an example.

    Args:
      index: Position in the split.

    Returns:
      `"image"` uint8 [H, W, 3], `"label"` uint8 [H, W], or [] if the image has
      one class, and `"name"`, a string.
    """
    record = self.record(index)
    name = record["name"].decode()
    place = f"{self._title}/{name}"
    return {
        # Verified at preparation, so there is no second decode here.
        "image": images.decode_image(record["image"], place, verify=False),
        "label": self.decode_label(record, place),
        "name": name,
    }

  def record(self, index: int) -> dict[str, Any]:
    """Returns an example as it is stored: `"image"` and `"name"` in bytes."""
    return self._records[index]

  def decode_label(self, record: Mapping[str, Any], place: str) -> np.ndarray:
    """Returns the label of a record, uint8 [H, W] or []."""
    label = record["label"]
    if isinstance(label, bytes):
      return images.decode_label(label, place, verify=False)
    return np.array(label, np.uint8)

  def sizes(self) -> np.ndarray:
    """Returns int32 [len, 2], height and width, read from the headers."""
    sizes = [
        images.image_size(self._records[i]["image"], f"{self._title}/{i}")
        for i in range(len(self))
    ]
    return np.array(sizes, np.int32).reshape(len(self), 2)


class Batches(Iterator[dict[str, np.ndarray]], Protocol):
  """An endless iterator of training batches; close it when done."""

  def close(self) -> None:
    """Ends the workers and frees their memory."""


def open_source(
    spec: spec_lib.DatasetSpec, split: str, data_dir: str | os.PathLike
) -> Source:
  """Opens a split of a prepared dataset.

  Args:
    spec: The dataset; one that needs no source is generated when missing.
    split: Name of the split, with an optional slice such as `train[:10%]`.
    data_dir: Folder of all prepared datasets.

  Returns:
    The examples of the split, picklable.

  Raises:
    UserError: The dataset is not prepared or damaged, or has no such split.
  """
  folder = prepare.ensure_prepared(spec, data_dir)
  builder = tfds.builder_from_directory(str(folder))
  splits = builder.info.splits
  name = split.split("[")[0]
  if name not in splits:
    raise errors.UserError(
        f"data.split: {spec.name} has no split {split!r}; expected one of "
        f"{', '.join(sorted(splits))}, or a part of one such as train[:90%]. "
        "Change the config or the flag."
    )
  missing = [p for p in splits[name].filepaths if not os.path.isfile(p)]
  if missing:
    raise errors.UserError(
        f"{missing[0]}: missing; expected the files that were prepared. Remove "
        f"{folder} and prepare the dataset again."
    )
  skip = tfds.decode.SkipDecoding()
  records = builder.as_data_source(
      split, decoders={"image": skip, "label": skip}
  )
  return Source(records, f"{spec.name}/{split}")


def train_batches(
    source: ExampleSource,
    augmentation: Augment,
    *,
    batch_size: int,
    seed: int,
    step: int = 0,
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Batches:
  """Returns the endless stream of training batches of one process.

  Args:
    source: Examples by index.
    augmentation: Makes an example of fixed size of one, with an own generator.
    batch_size: Examples in a batch, over all processes.
    seed: Decides order and augmentation.
    step: Number of batches to leave out; they are not computed.
    num_workers: Processes that load; 0 loads in this one. The batches are the
      same.
    shard: Index of this process and number of processes. Each loads its own
      part of every batch.

  Returns:
    An iterator of dicts `"image"` uint8 [b, h, w, 3], `"label"` uint8 [b, h, w]
    or [b] and `"index"` int32 [b], the position of each example in the source,
    with b = batch_size / number of processes.

  Raises:
    UserError: The batch does not divide over the processes, the source is
      empty, or a number is out of range. The iterator raises what the source
      raises, also from a worker.
  """
  shard_index, shard_count = shard
  if not 0 <= shard_index < shard_count:
    raise ValueError(f"shard={shard}: index must be in [0, {shard_count}).")
  if batch_size < 1 or batch_size % shard_count:
    raise errors.UserError(
        f"batch_size: {batch_size} does not divide over {shard_count} "
        "processes; expected a positive multiple. Change the config."
    )
  for key, value in (("seed", seed), ("num_workers", num_workers)):
    if value < 0:
      raise errors.UserError(
          f"{key}: {value}; expected 0 or more. Change the config."
      )
  if len(source) == 0:
    raise errors.UserError(
        "data: the training split is empty; expected at least one example. "
        "Choose another split or prepare the dataset again."
    )
  # Grain shuffles epoch e by seed + e, so runs of neighbouring seeds would
  # share their orders one epoch apart. Hashing sets them apart.
  order_seed, draw_seed = np.random.SeedSequence(seed).generate_state(2)
  batches = (
      grain.MapDataset.range(len(source))
      .shuffle(seed=int(order_seed))
      .repeat()
      .random_map(_Load(source, augmentation), seed=int(draw_seed))
      # Batches of the local size tile the global ones: global batch k is local
      # batches k * shard_count to (k + 1) * shard_count - 1. There is no
      # remainder, and with one allowed, grain counts beyond `sys.maxsize`.
      .batch(batch_size // shard_count, drop_remainder=True)
  )[shard_index::shard_count]
  if num_workers:
    return workers.Workers(batches, step, num_workers)
  return (batches[k] for k in itertools.count(step))


class _Load:
  """Reads and augments one example."""

  def __init__(self, source: ExampleSource, augmentation: Augment):
    self._source = source
    self._augmentation = augmentation

  def __call__(
      self, index: int, rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    example = self._augmentation(self._source[index], rng)
    return {
        "image": example["image"],
        "label": example["label"],
        "index": np.int32(index),
    }
