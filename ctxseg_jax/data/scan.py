"""Looks at images and their labels one by one, in several processes."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
from concurrent.futures import process
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import pathlib
import signal
from typing import Any

import cv2
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import progress
from ctxseg_jax.data import finding
from ctxseg_jax.data import headers
from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.exports import contents

_CHUNK = 8  # Pairs handed to a process at once.


@dataclasses.dataclass(frozen=True)
class Scan:
  """What one pair turned out to be.

  Attributes:
    identity: Its file, or its name where it has none: the same in two splits
      is one example that both hold.
    fault: What is wrong with it, in a line; empty if nothing is.
    notes: What is odd about it, a line each.
    is_turned: Whether its EXIF orientation turns or mirrors the image.
    digest: Of the pixels of the image, if they can be read.
    known: int64 [256], pixels by train id or `ignore_label`, if it has a label
      that can be read.
    unknown: int64 [256], pixels by the ids that no class has.
    by_name: Whether its label tells classes by their names, not by ids.
  """

  identity: str
  fault: str = ""
  notes: tuple[str, ...] = ()
  is_turned: bool = False
  digest: bytes | None = None
  known: np.ndarray | None = None
  unknown: np.ndarray | None = None
  by_name: bool = False


Read = Callable[[spec_lib.DatasetSpec, Any], Scan]


def scan_example(
    spec: spec_lib.DatasetSpec, example: spec_lib.Example, item: Any
) -> Scan:
  """Scans what was read of an item of `spec.find`.

  Raises:
    UserError: The decoder of training does not read the image.
  """
  place = str(next(paths(item), example.name))
  label = example.label
  # A split without public labels is not one of ignored pixels.
  if isinstance(item, finding.Pair) and item.label is None:
    label = label[:0]
  # By the decoder of training, which thus has seen every image, too.
  pixels = images.decode_image(example.image, place, verify=False)
  # The fastest one where the processor has instructions for it, as most do.
  digest = hashlib.sha256(str(pixels.shape).encode())
  digest.update(np.ascontiguousarray(pixels))
  notes = []
  if headers.lacks_end(example.image):
    notes.append(
        f"{place}: PNG without its end; all rows are there and are used. "
        "Replace the file if you can."
    )
  if label.ndim and label.size and (label == spec.ignore_label).all():
    notes.append(f"{place}: every pixel of the label is ignored.")
  return Scan(
      place,
      notes=tuple(notes),
      is_turned=images.orientation(example.image) != 1,
      digest=digest.digest(),
      known=np.bincount(label.ravel(), minlength=256),
      by_name=isinstance(item, contents.Pair),
  )


def read_pair(spec: spec_lib.DatasetSpec, item: Any) -> Scan:
  """Reads and scans an item of `spec.find`."""
  identity = str(next(paths(item), ""))
  try:
    return scan_example(spec, spec.read(spec, item), item)
  except spec_lib.UnknownValuesError as error:
    known, unknown = error.known, error.unknown
    return Scan(identity, str(error), known=known, unknown=unknown)
  except errors.UserError as error:
    return Scan(identity, str(error))


def read_stored(spec: spec_lib.DatasetSpec, item: tuple[Any, int]) -> Scan:
  """Scans an example of a prepared dataset, by its split and position."""
  source, index = item
  place = f"{spec.name}/{index}"
  try:
    record = source.record(index)
    place = f"{spec.name}/{record['name'].decode()}"
    size = images.verify_image(record["image"], place)
    label = source.decode_label(record, place)
    if label.shape != spec.label_shape(size):
      raise errors.UserError(
          f"{place}: label of shape {label.shape} for an image of {size}; "
          "expected equal sizes. Prepare the dataset again."
      )
    spec.check_label(label, place)
    example = spec_lib.Example(place, record["image"], label)
    return scan_example(spec, example, item)
  except errors.UserError as error:
    return Scan(place, fault=str(error))


def scan_all(
    spec: spec_lib.DatasetSpec,
    items: Sequence[Any],
    read: Read,
    num_workers: int,
) -> Iterator[Scan]:
  """Yields the scans of items in order, showing how far it is.

  With up to one worker it is done in this process. `read` is of a module, for
  it goes to others.

  Raises:
    UserError: A process was killed.
  """
  scan_item = functools.partial(read, spec)
  with contextlib.ExitStack() as stack:
    if num_workers > 1 and len(items) > _CHUNK:
      pool = concurrent.futures.ProcessPoolExecutor(
          num_workers,
          # A fork could copy locks of threads that it leaves behind.
          mp_context=multiprocessing.get_context("spawn"),
          initializer=_start_worker,
      )
      stack.callback(pool.shutdown, cancel_futures=True)
      scans = pool.map(scan_item, items, chunksize=_CHUNK)
    else:
      scans = map(scan_item, items)
    report = stack.enter_context(progress.shown(f"checking {spec.name}"))
    try:
      for count, scan in enumerate(scans, start=1):
        report(count, len(items))
        yield scan
    except process.BrokenProcessPool as error:
      raise errors.UserError(
          "a process was killed while it read files, perhaps for want of "
          "memory; expected it to finish. Run it with --num_workers=1."
      ) from error


def paths(item: Any) -> Iterator[pathlib.Path]:
  """Yields the files of an item of `spec.find`, that of the image first."""
  for name in ("image", "label"):
    path = getattr(item, name, None)
    if isinstance(path, pathlib.Path):
      yield path


def _start_worker() -> None:
  cv2.setNumThreads(0)  # The processes are the parallelism.
  # Sent to the whole group; the parent ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
