"""Tensors of a PyTorch file (.pth, .pt), without PyTorch.

Since version 1.6 `torch.save` writes a zip archive of one folder: a pickle
`data.pkl` that says what there is, and under `data/` the storages of the
tensors as they lie in memory. A tensor is a window on a storage, and several
may share one.

The pickle is read and not run (see `pickles`). Of all it says, a few names
count: ordered dictionaries, what rebuilds a dense tensor or a parameter, and
the types of storages. Whatever else a file holds beside its weights, as
settings, logs and the state of an optimizer, stays what it is, a note of what
somebody wanted called.
"""

import dataclasses
import mmap
import os
import sys
from typing import Any

import ml_dtypes
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import pickles
from ctxseg_jax.pretrained import stored_zip

# Where training programs keep the weights in what they save, by preference. An
# average of the weights is what a model is published and evaluated with.
WRAPPERS = (
    "state_dict_ema",  # timm, next to its `state_dict`.
    "model_ema",
    "state_dict",  # mmsegmentation, PyTorch-Encoding, timm.
    "model_state_dict",
    "model_state",
    "model",
    "net",  # EMANet.
)

_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_TENSOR = pickles.Global("torch._utils", "_rebuild_tensor_v2")
_PARAMETERS = (
    pickles.Global("torch._utils", "_rebuild_parameter"),
    pickles.Global("torch._utils", "_rebuild_parameter_with_state"),
)
_DICTIONARIES = (
    pickles.Global("collections", "OrderedDict"),
    pickles.Global("collections", "defaultdict"),
)

_LARGEST_PICKLE = 256 * 2**20  # Logs of a long training can be a tenth of it.
_MOST_DIMENSIONS = 32
_MOST_WRAPPERS = 4
# Tensors may share a storage, but not so that copies of them fill the memory.
_MOST_SHARING = 4

_DENSE = (
    "expected a dense tensor of real numbers. Save it as one with PyTorch "
    "(x.dequantize(), x.to_dense(), x.contiguous(), x.float())."
)


def read(
    path: str | os.PathLike[str], data: mmap.mmap
) -> dict[str, np.ndarray]:
  """Reads the weights of a file.

  Args:
    path: The file's name, for messages.
    data: The whole file.

  Returns:
    By name, views of `data` that cannot be written to, in the order of the
    file.

  Raises:
    UserError: It is damaged, or holds something else than weights.
    ValueError: It is cut short or damaged; the message has no name of the file.
  """
  archive = stored_zip.StoredZip(data)
  folder = _find_folder(path, archive)
  if f"{folder}/byteorder" in archive.spans:
    order = bytes(archive.read(f"{folder}/byteorder")[:10])
    if order != sys.byteorder.encode():
      raise errors.UserError(
          f"{path}: written with the byte order {order!r}; expected "
          f"{sys.byteorder}. Load and save it with PyTorch on a machine such "
          "as this one."
      )
  start, end = archive.spans[f"{folder}/data.pkl"]
  if end - start > _LARGEST_PICKLE:
    raise ValueError(f"{end - start} bytes in data.pkl")
  value = pickles.read(bytes(archive.read(f"{folder}/data.pkl")))

  storages = _Storages(archive, folder)
  tensors = {}
  for name, entry in _find_weights(path, value).items():
    if not isinstance(name, str):
      raise errors.UserError(
          f"{path}: weights under a name that is no text; expected a state "
          "dict. Save model.state_dict() with PyTorch."
      )
    try:
      tensors[name] = _read_tensor(entry, storages)
    except _Unsupported as error:
      raise errors.UserError(
          f"{path}: {name[:100]!r} is {error}; {_DENSE}"
      ) from error
    except ValueError as error:
      raise ValueError(f"tensor {name[:100]!r}: {error}") from error
  total = sum(x.nbytes for x in tensors.values())
  if total > _MOST_SHARING * len(data):
    raise ValueError(f"tensors of {total} bytes share storages")
  return tensors


class _Unsupported(Exception):
  """A tensor of a kind that has no place here."""


@dataclasses.dataclass
class _Storages:
  """The storages of a file, as far as they were needed."""

  archive: stored_zip.StoredZip
  folder: str
  read: dict[str, memoryview] = dataclasses.field(default_factory=dict)

  def get(self, reference: Any) -> np.ndarray:
    """Returns a storage as a vector, as a tensor refers to it."""
    if not isinstance(reference, pickles.Outside):
      raise ValueError(f"{pickles.describe(reference)} for a storage")
    if not isinstance(reference.id, tuple) or len(reference.id) != 5:
      raise ValueError("a storage without type, key and size")
    kind, storage_type, key, _, size = reference.id
    if kind != "storage" or not isinstance(storage_type, pickles.Global):
      raise ValueError("a storage without type, key and size")
    dtype = None
    if storage_type.module == "torch":
      dtype = _DTYPES.get(storage_type.name)
    if dtype is None:
      raise _Unsupported(f"of type {pickles.describe(storage_type)}")
    if not isinstance(key, str) or not _is_size(size):
      raise ValueError("a storage without key and size")
    if key not in self.read:
      name = f"{self.folder}/data/{key}"
      if name not in self.archive.spans:
        raise ValueError(f"its storage {key[:100]!r} is missing")
      self.read[key] = self.archive.read(name)
    view = self.read[key]
    if size * dtype.itemsize != view.nbytes:
      raise ValueError(
          f"a storage of {view.nbytes} bytes where {size} values of {dtype} "
          "should be"
      )
    return np.frombuffer(view, dtype)


def _find_folder(
    path: str | os.PathLike[str], archive: stored_zip.StoredZip
) -> str:
  """Returns the name of the one folder that holds all records."""
  folders = {name.split("/", 1)[0] for name in archive.spans}
  folder = min(folders, default="")
  strange = [
      name
      for name in archive.spans
      if "\\" in name or {"", ".", ".."} & set(name.split("/"))
  ]
  if len(folders) != 1 or strange:
    raise errors.UserError(
        f"{path}: a zip archive with the records "
        f"{sorted(strange or archive.spans)[0][:100]!r} and others; expected "
        "the one folder that torch.save writes. Pass the file of the weights "
        "itself."
    )
  if f"{folder}/constants.pkl" in archive.spans:
    raise errors.UserError(
        f"{path}: a TorchScript program; expected a state dict. Save "
        "torch.jit.load(file).state_dict() with PyTorch."
    )
  if f"{folder}/data.pkl" not in archive.spans:
    raise errors.UserError(
        f"{path}: a zip archive without data.pkl; expected what torch.save "
        "writes. Pass the file of the weights itself."
    )
  return folder


def _find_weights(path: str | os.PathLike[str], value: Any) -> dict[Any, Any]:
  """Returns the weights by name, taken out of what is wrapped around them."""
  for _ in range(_MOST_WRAPPERS):
    entries = _entries(value)
    if not entries:
      raise errors.UserError(
          f"{path}: {pickles.describe(value)} in place of the weights; "
          "expected a state dict, names with tensors. Save model.state_dict() "
          "with PyTorch."
      )
    for key in WRAPPERS:
      if _entries(entries.get(key)) is not None:
        value = entries[key]
        break
    else:
      return entries
  raise ValueError("a state dict within itself")


def _entries(value: Any) -> dict[Any, Any] | None:
  if isinstance(value, pickles.Call) and value.function in _DICTIONARIES:
    return value.items
  return value if type(value) is dict else None


def _read_tensor(entry: Any, storages: _Storages) -> np.ndarray:
  """Returns a tensor as a view of its storage."""
  if isinstance(entry, pickles.Call) and entry.function in _PARAMETERS:
    entry = _args(entry)[0]
  if not isinstance(entry, pickles.Call) or entry.function != _TENSOR:
    raise _Unsupported(pickles.describe(entry))
  storage, offset, shape, strides, *rest = _args(entry, 6)
  # Bits that stand for a sign or an imaginary part yet to be turned.
  if len(rest) > 2 and _entries(rest[2]):
    raise _Unsupported("a view with signs yet to be turned")
  storage = storages.get(storage)
  if not (
      isinstance(shape, tuple)
      and isinstance(strides, tuple)
      and len(shape) == len(strides) <= _MOST_DIMENSIONS
      and all(map(_is_size, (offset, *shape, *strides)))
  ):
    raise ValueError("no valid shape, strides and offset")
  size = 1
  for extent in shape:
    size *= extent
  if size == 0:
    return np.zeros(shape, storage.dtype)
  last = offset + sum(
      (extent - 1) * stride
      for extent, stride in zip(shape, strides, strict=True)
  )
  # More values than the storage has are few ones many times: a small file that
  # would fill the memory.
  if last >= storage.size or size > storage.size:
    raise ValueError(
        f"shape {shape}, strides {strides}, offset {offset} in a storage of "
        f"{storage.size} values"
    )
  return np.ndarray(
      shape,
      storage.dtype,
      storage,
      offset=offset * storage.itemsize,
      strides=[stride * storage.itemsize for stride in strides],
  )


def _args(call: pickles.Call, count: int = 1) -> tuple[Any, ...]:
  if not isinstance(call.args, tuple) or len(call.args) < count:
    raise ValueError(f"fewer than {count} arguments to rebuild it from")
  return call.args


def _is_size(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**63
