"""CIFAR-10: the published files to a tfds dataset of one class per image.

Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
2009, https://www.cs.toronto.edu/~kriz/cifar.html.

The files of the Python edition are pickles. They are read and not run: arrays
are put together here from what the pickle says of them, and a file that says
anything else is refused.
"""

from collections.abc import Sequence
import pathlib
import tarfile
from typing import Any
import zlib

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import pickles
from ctxseg_jax.data import images
from ctxseg_jax.data import layouts
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
SIZE = 32
PER_FILE = 10_000

_SPLITS = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
_NAMES = (*_SPLITS["train"], *_SPLITS["test"])
_LARGEST_FILE = 64_000_000  # Twice the published ones.

_FOLDER = "cifar-10-batches-py"
_ARCHIVE = "cifar-10-python.tar.gz"
_LAYOUTS = f"{_FOLDER}/ (data_batch_1 ... test_batch) or {_ARCHIVE}"

_ARRAYS = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
)
_DTYPE = ("numpy", "dtype")


def load(
    source: pathlib.Path, *, any_size: bool = False
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads and checks all images.

  Args:
    source: Holds the folder or the archive of `SPEC.layouts`, or is the folder.
    any_size: Accept files of other than 10,000 images and unequal classes.

  Returns:
    By split, images uint8 [N, 32, 32, 3] and labels uint8 [N], in the order of
    the files.

  Raises:
    UserError: Neither is there, a file is missing or damaged, or the counts are
      not the published ones.
  """
  contents, place = _read_files(pathlib.Path(source))
  splits = {}
  for split, names in _SPLITS.items():
    parts = []
    for name in names:
      parts.append(_decode(contents[name], f"{place}: {name}"))
      count = len(parts[-1][1])
      if count != PER_FILE and not any_size:
        raise errors.UserError(
            f"{place}: {name}: {count} images; expected {PER_FILE}. Download "
            "the file again, or pass --any_size to prepare what is there."
        )
    planes, labels = (np.concatenate(x) for x in zip(*parts, strict=True))
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    # This also finds a file that is there twice under two names.
    if counts.min() != counts.max() and not any_size:
      raise errors.UserError(
          f"{place}: {split} has {counts.min()} to {counts.max()} images per "
          f"class; expected {len(labels) // len(CLASS_NAMES)} of each. "
          "Download the files again."
      )
    splits[split] = (planes.transpose(0, 2, 3, 1), labels)
  return splits


def find(
    source: pathlib.Path, *, any_size: bool
) -> dict[str, Sequence[tuple[str, np.ndarray, int]]]:
  """Lists name, picture and label of every example; errors are of `load`."""
  return {
      split: [
          (f"{split}_{i:05d}", picture, int(label))
          for i, (picture, label) in enumerate(zip(*arrays, strict=True))
      ]
      for split, arrays in load(source, any_size=any_size).items()
  }


def read(
    spec: spec_lib.DatasetSpec, item: tuple[str, np.ndarray, int]
) -> spec_lib.Example:
  """Makes an example of an item of `find`."""
  name, picture, label = item
  label = np.array(label, np.uint8)
  spec.check_label(label, name)
  return spec_lib.Example(name, images.encode_png(picture), label)


SPEC = spec_lib.DatasetSpec(
    name="cifar10",
    class_names=CLASS_NAMES,
    mean=(125.3, 123.0, 113.9),
    split_sizes={"train": 50_000, "test": 10_000},
    find=find,
    read=read,
    task="classification",
    description=__doc__,
    layouts=_LAYOUTS,
    references={"test": {"accuracy of a guess": 0.1}},
)


def _read_files(source: pathlib.Path) -> tuple[dict[str, bytes], pathlib.Path]:
  """Returns the content of each file, and where they are."""
  for folder in (source / _FOLDER, source):
    if (folder / "test_batch").is_file():
      limits = dict(max_bytes=_LARGEST_FILE, what="a file of CIFAR-10")
      return {n: files.read_bytes(folder / n, **limits) for n in _NAMES}, folder
  path, contents = source / _ARCHIVE, {}
  if not path.is_file():
    raise layouts.unknown(source, _LAYOUTS)
  try:
    # In one pass: to seek in a compressed archive is to start over.
    with tarfile.open(path, "r|gz") as archive:
      for member in archive:
        name = pathlib.PurePosixPath(member.name).name
        if name in _NAMES and member.isfile():
          if member.size > _LARGEST_FILE:
            raise OSError(f"{member.name} of {member.size} bytes")
          contents[name] = archive.extractfile(member).read()
  except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
    raise errors.UserError(
        f"{path}: cannot be unpacked ({' '.join(str(error).split())}); "
        "expected a whole .tar.gz archive of CIFAR-10. Download it again."
    ) from error
  for name in _NAMES:
    if name not in contents:
      raise errors.UserError(
          f"{path}: holds no {name}; expected one of each of "
          f"{', '.join(_NAMES)}. Download it again."
      )
  return contents, path


def _decode(data: bytes, place: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns planes R, G and B uint8 [N, 3, 32, 32], and labels uint8 [N]."""
  try:
    batch = pickles.read(data)
    if not isinstance(batch, dict):
      raise TypeError(f"{pickles.describe(batch)} and no dictionary")
    planes, labels = _read_array(batch[b"data"]), batch[b"labels"]
    if not isinstance(labels, list) or {*map(type, labels)} != {int}:
      raise TypeError("labels that are no list of numbers")
    if planes.shape != (len(labels), 3 * SIZE * SIZE):
      raise ValueError(f"{planes.shape} values for {len(labels)} labels")
    for index, label in enumerate(labels):
      if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(f"label {label} of image {index}; expected 0 to 9")
  except Exception as error:  # A damaged pickle can raise anything.
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise errors.UserError(
        f"{place} is not a batch of CIFAR-10 ({reason}); expected a dictionary "
        "of images and labels. Download it again."
    ) from error
  return planes.reshape(-1, 3, SIZE, SIZE), np.array(labels, np.uint8)


def _read_array(value: Any) -> np.ndarray:
  """Returns the array that a pickle describes, uint8 [N, C]."""
  if not isinstance(value, pickles.Noted) or value.origin not in _ARRAYS:
    raise TypeError(f"{pickles.describe(value)} and no array of images")
  _, shape, dtype, is_fortran, data = value.state
  if dtype.origin != _DTYPE or dtype.args[0] not in ("u1", b"u1"):
    raise ValueError("images are not of 8 bits")
  # Column by column is possible, though nobody publishes it.
  order = "F" if is_fortran else "C"
  return np.frombuffer(data, np.uint8).reshape(shape, order=order)
