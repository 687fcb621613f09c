"""CIFAR-10: the published files to a tfds dataset of one class per image.

Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
2009, https://www.cs.toronto.edu/~kriz/cifar.html.

Both editions are read, as archives too, which are not unpacked. The files of
the Python one are pickles. They are read and not run: arrays are put together
here from what the pickle says of them, and a file that says anything else is
refused.
"""

from collections.abc import Callable
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

_BATCHES = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
_PIXELS = 3 * SIZE * SIZE
_RECORD = 1 + _PIXELS  # A label, then the planes R, G and B row by row.
_LARGEST_FILE = 64_000_000  # Twice the published ones.

_BINARY = "cifar-10-batches-bin"
_PYTHON = "cifar-10-batches-py"
_LAYOUTS = (
    f"{_BINARY}/ (data_batch_1.bin ... test_batch.bin) or "
    f"cifar-10-binary.tar.gz, or {_PYTHON}/ (data_batch_1 ... test_batch) or "
    "cifar-10-python.tar.gz"
)

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
    source: A folder that holds one of the layouts of `SPEC.layouts`, or is one
      of the two folders itself. If there are several the first is read.
    any_size: Whether to accept files of other than 10,000 images and classes of
      unequal size: for miniatures and excerpts.

  Returns:
    By split, images uint8 [N, 32, 32, 3] and labels uint8 [N], in the order of
    the files.

  Raises:
    UserError: No layout is there, a file is missing, cut short or damaged, a
      label is no class, or the counts are not the published ones.
  """
  contents, decode, place = _read_all(pathlib.Path(source))
  splits = {}
  for split, names in _BATCHES.items():
    parts = []
    for name in names:
      found, labels = decode(contents[name], f"{place}: {name}")
      where = f"{place}: {name}"
      if len(labels) != PER_FILE and not any_size:
        raise errors.UserError(
            f"{where}: {len(labels)} images; expected {PER_FILE}. Download the "
            "file again, or pass --any_size to prepare what is there."
        )
      if labels.max() >= len(CLASS_NAMES):
        index = int(np.argmax(labels >= len(CLASS_NAMES)))
        raise errors.UserError(
            f"{where}: label {labels[index]} of image {index}; expected 0 to "
            f"{len(CLASS_NAMES) - 1}. Is this CIFAR-10? Download the file "
            "again."
        )
      parts.append((found, labels))
    found, labels = (np.concatenate(x) for x in zip(*parts, strict=True))
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    # This also finds a file that is there twice under two names.
    if counts.min() != counts.max() and not any_size:
      raise errors.UserError(
          f"{place}: {split} has {counts.min()} to {counts.max()} images per "
          f"class; expected {len(labels) // len(CLASS_NAMES)} of each. "
          "Download the files again."
      )
    planes = found.reshape(-1, 3, SIZE, SIZE)
    splits[split] = (planes.transpose(0, 2, 3, 1), labels)
  return splits


def find(
    source: pathlib.Path, *, any_size: bool
) -> dict[str, Sequence[tuple[str, np.ndarray, int]]]:
  """Lists name, picture and label of every example; see `load`."""
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


def _read_all(
    source: pathlib.Path,
) -> tuple[dict[str, bytes], Callable[..., Any], pathlib.Path]:
  """Returns the files of the first layout, how to decode them, their place."""
  for folder, archive, suffix, decode in (
      (_BINARY, "cifar-10-binary.tar.gz", ".bin", _decode_binary),
      (_PYTHON, "cifar-10-python.tar.gz", "", _decode_python),
  ):
    wanted = {f"{n}{suffix}": n for names in _BATCHES.values() for n in names}
    for path in (source / folder, source):
      if (path / f"test_batch{suffix}").is_file():
        contents = {
            name: files.read_bytes(
                path / file, max_bytes=_LARGEST_FILE, what="a file of CIFAR-10"
            )
            for file, name in wanted.items()
        }
        return contents, decode, path
    path = source / archive
    if path.is_file():
      return _unpack(path, wanted), decode, path
  raise layouts.unknown(source, _LAYOUTS)


def _unpack(path: pathlib.Path, wanted: dict[str, str]) -> dict[str, bytes]:
  """Returns the files of an archive by the names that `wanted` has for them."""
  contents = {}
  try:
    # In one pass: to seek in a compressed archive is to start over.
    with tarfile.open(path, "r|gz") as archive:
      for member in archive:
        name = wanted.get(pathlib.PurePosixPath(member.name).name)
        if name and member.isfile():
          if member.size > _LARGEST_FILE:
            raise OSError(f"{member.name} of {member.size} bytes")
          contents[name] = archive.extractfile(member).read()
  except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
    raise errors.UserError(
        f"{path}: cannot be unpacked ({' '.join(str(error).split())}); "
        "expected a whole .tar.gz archive of CIFAR-10. Download it again."
    ) from error
  for file, name in wanted.items():
    if name not in contents:
      raise errors.UserError(
          f"{path}: holds no {file}; expected one of each of "
          f"{', '.join(wanted)}. Download it again."
      )
  return contents


def _decode_binary(data: bytes, place: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns planes uint8 [N, 3072] and labels uint8 [N]."""
  if not data or len(data) % _RECORD:
    raise errors.UserError(
        f"{place}.bin has {len(data)} bytes; expected a multiple of {_RECORD}, "
        f"{PER_FILE * _RECORD} as published. It is cut short or another file: "
        "download it again."
    )
  records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
  return records[:, 1:], records[:, 0]


def _decode_python(data: bytes, place: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns planes uint8 [N, 3072] and labels uint8 [N]."""
  try:
    batch = pickles.read(data)
    if not isinstance(batch, dict):
      raise TypeError(f"{pickles.describe(batch)} and no dictionary")
    planes, labels = _read_array(batch[b"data"]), batch[b"labels"]
    if not isinstance(labels, list) or not all(
        type(label) is int and 0 <= label <= 255 for label in labels
    ):
      raise TypeError("labels that are no list of numbers up to 255")
    if not labels or planes.shape != (len(labels), _PIXELS):
      raise ValueError(f"{planes.shape} values for {len(labels)} labels")
  except Exception as error:  # A damaged pickle can raise anything.
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise errors.UserError(
        f"{place} is not a batch of CIFAR-10 ({reason}); expected a dictionary "
        "of images and labels. Download it again, or use the binary version."
    ) from error
  return planes, np.array(labels, np.uint8)


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
