"""Prepared datasets as sources of examples.

Prepared files come from anywhere, so nothing of them is trusted: tfds imports
whatever module `features.json` names and believes `dataset_info.json`, so
neither is read. The features are those of the specification, and the lengths
of the files are held against the files.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

from array_record.python import array_record_data_source
from array_record.python import array_record_module
from google.protobuf import message
import numpy as np
import tensorflow_datasets as tfds

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import builder
from ctxseg_jax.data import images
from ctxseg_jax.data import label_png
from ctxseg_jax.data import packing
from ctxseg_jax.data import spec as spec_lib

_INDEX = "metadata.json"


@dataclasses.dataclass(frozen=True)
class Split:
  """What is known of a split without its records."""

  shard_lengths: list[int]  # Number of examples in each file.
  sizes: np.ndarray  # int32 [n, 2], height and width of each image.
  label_pixels: list[int]  # Number of pixels with each label, 256 of them.

  def __post_init__(self):
    sizes = np.array(self.sizes, np.int32).reshape(-1, 2)
    object.__setattr__(self, "sizes", sizes)
    for number in (*self.shard_lengths, *self.label_pixels):
      if type(number) is not int or number < 0:
        raise ValueError(f"found {number!r} for a count")
    if (sum(self.shard_lengths), 256) != (len(sizes), len(self.label_pixels)):
      raise ValueError("the counts do not fit together")
    num_pixels = sizes.astype(np.int64).prod(axis=1)
    if np.any(sizes < 1) or np.any(num_pixels > images.MAX_PIXELS):
      raise ValueError("an image of no size or too large a one")

  @property
  def num_examples(self) -> int:
    return len(self.sizes)


class Source:
  """Random access to a prepared split, decoding on access; see `open_source`.

  It is picklable, and threads may share it.
  """

  def __init__(
      self,
      spec: spec_lib.DatasetSpec,
      split: str,
      shards: list[tuple[str, int]],  # Files and numbers of records.
      chosen: np.ndarray,  # [len], the records that are examples, in order.
      sizes: np.ndarray,  # int32 [len, 2], height and width of their images.
  ):
    self._title = f"{spec.name}/{split}"
    self._paths = [path for path, _ in shards]
    self._ends = np.cumsum([length for _, length in shards])
    self._chosen = chosen
    self._sizes = sizes
    self._features = builder.features(spec)
    self._decoders = dict.fromkeys(
        ("image", "label"), tfds.decode.SkipDecoding()
    )
    # With its length, a file is opened when something of it is read.
    self._records = array_record_data_source.ArrayRecordDataSource(
        [f"{path}[0:{length}]" for path, length in shards]
    )

  def __len__(self) -> int:
    return len(self._chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Returns an example by its position in the split.

    Returns:
      `"image"` uint8 [H, W, 3], `"label"` uint8 [H, W], or [] if the image has
      one class, and `"name"`, a string.

    Raises:
      UserError: A file is damaged.
    """
    record = self.record(index)
    name = record["name"].decode()
    place = f"{self._title}/{name}"
    # Verified at preparation.
    image = images.decode_image(record["image"], place, verify=False)
    if image.shape[:2] != tuple(self._sizes[index]):
      raise self._damaged(index, f"the size of {name} is not that in {_INDEX}")
    label = self.decode_label(record, place)
    return {"image": image, "label": label, "name": name}

  def record(self, index: int) -> dict[str, Any]:
    """Returns an example as it is stored: `"image"` and `"name"` in bytes."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # The end, for loops.
    try:
      return self._features.deserialize_example_np(
          self._records[int(self._chosen[index])], decoders=self._decoders
      )
    # What array_record raises when a checksum does not fit, and the reader of
    # examples on the records of others.
    except (RuntimeError, ValueError, LookupError, message.DecodeError) as e:
      raise self._damaged(index, e) from e

  def decode_label(self, record: Mapping[str, Any], place: str) -> np.ndarray:
    """Returns the label of a record, uint8 [H, W] or []."""
    label = record["label"]
    if isinstance(label, bytes):
      return label_png.decode(label, place)
    return np.array(label, np.uint8)

  def sizes(self) -> np.ndarray:
    """Returns int32 [len, 2], height and width; reads no record."""
    return self._sizes

  def _damaged(self, index: int, reason: Any) -> errors.UserError:
    file = np.searchsorted(self._ends, self._chosen[index], side="right")
    return _damaged(self._paths[file], reason)


def open_source(
    spec: spec_lib.DatasetSpec, split: str, data_dir: str | os.PathLike
) -> Source:
  """Opens a split of a prepared dataset.

  Args:
    spec: The dataset; one that needs no source is generated when missing.
    split: Name of a split, a slice such as `train[:10%]`, or several with `+`
      between.
    data_dir: Folder of all prepared datasets.

  Raises:
    UserError: The dataset is not prepared or damaged, or has no such split, or
      no example is in it.
  """
  folder = packing.ensure_prepared(spec, data_dir)
  known = _read_index(folder)
  shards, chosen, sizes = [], [], []
  for name, part in _select(spec, split, known):
    first = sum(length for _, length in shards)
    shards += _check_files(folder, spec.name, name, known[name].shard_lengths)
    chosen += [first + i for i in part]
    sizes.append(known[name].sizes[part])
  return Source(spec, split, shards, np.array(chosen), np.concatenate(sizes))


def splits(
    spec: spec_lib.DatasetSpec, data_dir: str | os.PathLike
) -> dict[str, Split]:
  """Returns the splits of a prepared dataset that are not empty, by name."""
  known = _read_index(packing.dataset_dir(spec, data_dir))
  return {name: split for name, split in known.items() if split.num_examples}


def summary(spec: spec_lib.DatasetSpec, data_dir: str | os.PathLike) -> str:
  """Returns a table of what a prepared dataset holds."""
  folder = packing.dataset_dir(spec, data_dir)
  known = splits(spec, data_dir)
  lines = ["split     examples  classes  ignored"]
  for name, split in known.items():
    pixels = split.label_pixels
    present = np.count_nonzero(pixels[: spec.num_classes])
    classes = f"{present}/{spec.num_classes}"
    ignored = pixels[spec.ignore_label] / sum(pixels)
    lines.append(
        f"{name:8}  {split.num_examples:8}  {classes:>7}  {ignored:7.2%}"
    )
  absent = [split for split in spec.split_sizes if split not in known]
  if absent:
    lines.append(
        f"without {', '.join(absent)}, which the source lacks; to add it, "
        f"complete the source, remove {folder} and prepare again"
    )
  lines.append(f"{spec.name} in {folder}")
  return "\n".join(lines)


def _read_index(folder: pathlib.Path) -> dict[str, Split]:
  path = folder / _INDEX
  text = files.read_text(path, what="the index of a dataset")
  try:
    splits = json.loads(text)["splits"]
    return {name: Split(**values) for name, values in splits.items()}
  except Exception as e:  # Anything may stand in JSON.
    raise _damaged(path, e) from e


def _select(
    spec: spec_lib.DatasetSpec, split: str, known: Mapping[str, Split]
) -> list[tuple[str, range]]:
  """Returns the parts of splits that an expression selects."""
  try:
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(known)
    selected = [
        (p.splitname, range(known[p.splitname].num_examples)[p.from_ : p.to])
        for p in parts
    ]
    if any(selected_of for _, selected_of in selected):
      return selected
    reason = "no example is in it"
  except (ValueError, OverflowError, NotImplementedError) as e:
    reason = str(e).split(". S")[0].splitlines()[-1]
  sizes = ", ".join(f"{v.num_examples} in {k}" for k, v in known.items())
  raise errors.UserError(
      f"data: {spec.name} has no split {split!r}; expected one of "
      f"{', '.join(known)}, or a part of one such as train[:90%] ({reason}; "
      f"there are {sizes}). Change the config or the flag."
  )


def _check_files(
    folder: pathlib.Path, dataset: str, split: str, lengths: list[int]
) -> list[tuple[str, int]]:
  """Returns files of a split and their lengths, which are held against them."""
  shards = []
  for i, length in enumerate(lengths):
    name = f"{dataset}-{split}.{builder.FORMAT}-{i:05}-of-{len(lengths):05}"
    path = str(folder / name)
    remedy = f"Remove {folder} and prepare the dataset again."
    files.open_regular(
        path, what="a file of the prepared dataset", remedy=remedy
    ).close()
    try:
      reader = array_record_module.ArrayRecordReader(path)
      found = reader.num_records()
      reader.close()
    except (RuntimeError, ValueError) as e:
      raise _damaged(path, e) from e
    if found != length:
      raise _damaged(path, f"{found} examples where there were {length}")
    shards.append((path, length))
  return shards


def _damaged(path: str | os.PathLike, reason: Any) -> errors.UserError:
  text = " ".join(str(reason).split())[:120]
  return errors.UserError(
      f"{files.printable(path)}: damaged ({text}); expected the file as it was "
      f"prepared. Remove {os.path.dirname(path)} and prepare the dataset again."
  )
