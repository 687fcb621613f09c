"""Sources of examples as streams of training batches.

The global batch of step k is a pure function of (seed, k): order and
augmentation derive from the seed and the position in the stream, never from a
worker or a host. So a run resumes from its step number alone, at once, and with
any number of workers and processes.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import itertools
from typing import Any

import grain
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import workers

# Returns {"image": uint8 [h, w, 3], "label": uint8 [h, w] or []} of fixed size.
Augment = Callable[
    [Mapping[str, Any], np.random.Generator], dict[str, np.ndarray]
]


def train_batches(
    source: Sequence[Mapping[str, Any]],
    augmentation: Augment,
    *,
    batch_size: int,
    seed: int,
    step: int = 0,
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Generator[dict[str, np.ndarray]] | workers.Workers:
  """Returns the endless stream of training batches of one process.

  Args:
    source: Examples, `"image"` uint8 [H, W, 3] and `"label"` uint8 [H, W] or
      []; picklable for workers.
    augmentation: Makes an example of fixed size of one.
    batch_size: Examples in a batch, over all processes.
    seed: Decides order and augmentation.
    step: Number of batches to leave out; they are not computed.
    num_workers: Processes that load; 0 loads in this one.
    shard: Index of this process, which loads its part of every batch, and
      number of processes.

  Returns:
    An iterator of dicts `"image"` uint8 [b, h, w, 3], `"label"` uint8 [b, h, w]
    or [b] and `"index"` int32 [b], the position of each example in the source,
    with b = batch_size / number of processes. Close it when done.

  Raises:
    UserError: The batch does not divide over the processes, or the source is
      empty. The iterator raises what the source raises, also from a worker.
  """
  shard_index, shard_count = shard
  if not 0 <= shard_index < shard_count:
    raise ValueError(f"shard={shard}: index must be in [0, {shard_count}).")
  if batch_size < 1 or batch_size % shard_count:
    raise errors.UserError(
        f"batch_size: {batch_size} does not divide over {shard_count} "
        "processes; expected a positive multiple. Change the config."
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
      .random_map(
          functools.partial(_load, source, augmentation), seed=int(draw_seed)
      )
      # Batches of the local size tile the global ones: global batch k is local
      # batches k * shard_count to (k + 1) * shard_count - 1. There is no
      # remainder, and with one allowed, grain counts beyond `sys.maxsize`.
      .batch(batch_size // shard_count, drop_remainder=True)
  )[shard_index::shard_count]
  if num_workers:
    return workers.Workers(batches, step, num_workers)
  return (batches[k] for k in itertools.count(step))


def _load(source, augmentation, index, rng):
  """Reads and augments one example."""
  return {**augmentation(source[index], rng), "index": np.int32(index)}
