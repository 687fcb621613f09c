"""What the pickle in a PyTorch file says of its weights, without PyTorch.

Of the names in the pickle (see `pickles`) a few count: ordered dictionaries,
what rebuilds a dense tensor or a parameter, and the types of storages. A tensor
is a view of a storage, which lies outside the pickle and which several may
share: `pth_zip` and `pth_legacy` find it.
"""

from collections.abc import Callable
import json
import math
import sys
from typing import Any
from typing import NamedTuple

import ml_dtypes
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import pickles

# Where training programs keep the weights in what they save, by preference: an
# average of the weights is what a model is evaluated with.
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
_TENSORS = (
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor"),  # Written before 0.4.
)
_PARAMETERS = (
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
)
_DICTIONARIES = (("collections", "OrderedDict"), ("collections", "defaultdict"))

_MOST_DIMENSIONS = 8
_MOST_WRAPPERS = 4
# Tensors may share a storage, but not so that copies of them fill the memory.
_MOST_SHARING = 4

DENSE = (
    "expected a dense tensor of real numbers. If you trust the file, make it "
    "one with PyTorch: x.dequantize(), x.to_dense(), x.contiguous(), x.float()."
)
_STATE_DICT = (
    "expected a state dict, names with tensors. If you trust the file, save "
    "model.state_dict() with PyTorch."
)


class Unsupported(Exception):
  """A tensor of a kind that has no place here."""


class Storage(NamedTuple):
  """What a pickle says of a storage; the size is the number of values."""

  dtype: np.dtype
  key: str
  size: int


def read_storage(outside: pickles.Outside) -> Storage:
  """Reads what a pickle says of a storage.

  Raises:
    ValueError: It is damaged.
    Unsupported: Its values are of a type that has no place here.
  """
  match outside.id:
    # The rest describes parts of storages, before PyTorch 0.4.
    case ("storage" | b"storage", type() as kind, key, _, int(size), *rest):
      key = as_text(key)
    case _:
      key, size, rest = None, None, ()
  if not isinstance(key, str) or not _is_size(size) or len(rest) > 1:
    raise ValueError("a storage without type, key and size")
  module, name = kind.origin
  if module != "torch" or name not in _DTYPES:
    raise Unsupported(f"of type {pickles.describe(kind)}")
  if rest not in ([], [None]):
    raise Unsupported("in a part of a storage")
  return Storage(_DTYPES[name], key, size)


def refuse_byte_order(found: str) -> None:
  """Raises the `UserError` of a file from a machine of the other kind."""
  raise errors.UserError(
      f"written with {found}; expected {sys.byteorder}. Load and save it with "
      "PyTorch on a machine such as this one."
  )


def read_weights(
    value: Any, find_storage: Callable[[str], memoryview | None], length: int
) -> dict[str, np.ndarray]:
  """Makes the weights of what a pickle says.

  Args:
    value: What `pickles.read` returned.
    find_storage: Returns the bytes of a storage by its key; None if there is
      none.
    length: Number of bytes of the file.

  Returns:
    By name, views of the storages, in the order of the file.

  Raises:
    UserError: It is something else than weights.
    ValueError: It is damaged.
  """
  tensors = {}
  for name, entry in _find_weights(value).items():
    if not isinstance(name, str):
      raise errors.UserError(
          f"weights under a name that is no text; {_STATE_DICT}"
      )
    try:
      tensors[name] = _read_tensor(entry, find_storage)
    except Unsupported as error:
      raise errors.UserError(f"{name[:100]!r} is {error}; {DENSE}") from error
    except ValueError as error:
      raise ValueError(f"tensor {name[:100]!r}: {error}") from error
  total = sum(x.nbytes for x in tensors.values())
  if total > _MOST_SHARING * length:
    raise ValueError(f"tensors of {total} bytes share storages")
  return tensors


def read_notes(value: Any) -> dict[str, str]:
  """Returns what mmsegmentation notes beside the weights that it saves.

  That is its config, the text of a program, and the names of the classes.

  Args:
    value: What `pickles.read` returned.

  Returns:
    Of what there is, `mmseg_config`, and `class_names` as JSON.
  """
  meta = _entries((_entries(value) or {}).get("meta")) or {}
  found = {}
  for key in ("config", "cfg"):  # Until 1.0, and since.
    if isinstance(meta.get(key), str):
      found["mmseg_config"] = meta[key]
  classes = meta.get("CLASSES")
  classes = (_entries(meta.get("dataset_meta")) or {}).get("classes", classes)
  if isinstance(classes, list | tuple) and classes:
    if all(isinstance(x, str) for x in classes):
      found["class_names"] = json.dumps(classes)
  return found


def as_text(value: Any) -> Any:
  """Returns a string of Python 2 as text, anything else as it is."""
  if not isinstance(value, bytes):
    return value
  return value.decode("utf-8", "backslashreplace")


def _find_weights(value: Any) -> dict[Any, Any]:
  for _ in range(_MOST_WRAPPERS):
    entries = _entries(value)
    if entries is None:
      found = pickles.describe(value)
      raise errors.UserError(f"{found} in place of the weights; {_STATE_DICT}")
    inner = (entries.get(key) for key in WRAPPERS)
    value = next((x for x in inner if _entries(x) is not None), None)
    if value is None:
      return entries
  raise ValueError("a state dict within itself")


def _entries(value: Any) -> dict[Any, Any] | None:
  """Returns a dictionary of any kind as a plain one, or None."""
  if type(value) is dict:
    items = value.items()
  elif _origin(value) not in _DICTIONARIES:
    return None
  elif value.args and isinstance(value.args[0], list):
    # Python 2 gave an ordered one its items as pairs.
    items = value.args[0]
    for pair in items:
      if type(pair) is not list or len(pair) != 2:
        raise ValueError("a dictionary of something else than pairs")
      if not isinstance(pair[0], str | bytes):
        raise ValueError("a dictionary with names that are no text")
  else:
    items = value.items.items()
  return {as_text(key): x for key, x in items}


def _origin(value: Any) -> tuple[str, str] | None:
  return value.origin if isinstance(value, pickles.Noted) else None


def _read_tensor(
    entry: Any, find_storage: Callable[[str], memoryview | None]
) -> np.ndarray:
  if _origin(entry) in _PARAMETERS:
    entry = _args(entry, 1)[0]
  if _origin(entry) not in _TENSORS:
    raise Unsupported(pickles.describe(entry))
  outside, offset, shape, strides, *rest = _args(entry, 4)
  # Bits that stand for a sign or an imaginary part yet to be turned.
  if len(rest) > 2 and rest[2]:
    raise Unsupported("a view with signs yet to be turned")
  storage = _view_storage(outside, find_storage)
  if not (
      isinstance(shape, tuple)
      and isinstance(strides, tuple)
      and len(shape) == len(strides) <= _MOST_DIMENSIONS
      and all(map(_is_size, (offset, *shape, *strides)))
  ):
    raise ValueError("no valid shape, strides and offset")
  size = math.prod(shape)
  if size == 0:
    return np.zeros(shape, storage.dtype)
  # The stride of a single entry can be anything.
  steps = [s if n > 1 else 1 for n, s in zip(shape, strides, strict=True)]
  last = offset + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
  if last >= storage.size:
    raise ValueError(
        f"shape {shape}, strides {strides}, offset {offset} in a storage of "
        f"{storage.size} values"
    )
  # Copied, the tensor of a small file would fill the memory.
  if size > storage.size:
    raise Unsupported("made of fewer values, each there many times")
  width = storage.itemsize
  steps = [step * width for step in steps]
  return np.ndarray(shape, storage.dtype, storage, offset * width, steps)


def _view_storage(
    outside: Any, find_storage: Callable[[str], memoryview | None]
) -> np.ndarray:
  if not isinstance(outside, pickles.Outside):
    raise ValueError(f"{pickles.describe(outside)} for a storage")
  dtype, key, size = read_storage(outside)
  view = find_storage(key)
  if view is None:
    raise ValueError(f"its storage {key[:100]!r} is missing")
  if size * dtype.itemsize != view.nbytes:
    raise ValueError(
        f"a storage of {view.nbytes} bytes where {size} values of {dtype}"
        " should be"
    )
  return np.frombuffer(view, dtype)


def _args(made: pickles.Noted, count: int) -> tuple[Any, ...]:
  if len(made.args) < count:
    raise ValueError(f"fewer than {count} arguments to rebuild it from")
  return made.args


def _is_size(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**63
