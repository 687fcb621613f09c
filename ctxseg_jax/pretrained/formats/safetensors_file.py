"""Tensors of a .safetensors file, and our own files of weights.

Format: https://huggingface.co/docs/safetensors. The length of a header, the
header in JSON, and the tensors one after the other. The library checks all of
it but names that are there twice; to NumPy it gives copies, and no bfloat16.
"""

from collections.abc import Mapping
import json
import mmap
import os
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from ctxseg_jax import errors
from ctxseg_jax import files

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_LENGTH_BYTES = 8
_LARGEST_HEADER = 4 * 2**20  # A network of a thousand tensors takes 0.1 MB.


def read(
    path: str | os.PathLike[str], data: mmap.mmap
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the tensors and the metadata of a file.

  Args:
    path: The file, which the library opens.
    data: All of it; the tensors are views of it, by name and in its order.

  Raises:
    UserError: A tensor is of a type that has no place here.
    ValueError: It is cut short or damaged.
  """
  length = int.from_bytes(data[:_LENGTH_BYTES], "little")
  start = _LENGTH_BYTES + length
  if length > _LARGEST_HEADER or start > len(data):
    raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
  try:
    with safetensors.safe_open(path, framework="numpy"):
      pass  # Checks types, shapes and places of all tensors.
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(" ".join(str(error).split())[:200]) from error
  header = json.loads(data[_LENGTH_BYTES:start], object_pairs_hook=_distinct)
  metadata = header.pop("__metadata__", None) or {}
  tensors = {}
  for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
    entry = header[name]
    if entry["dtype"] not in _DTYPES:
      raise errors.UserError(
          f"{name[:100]!r} is of type {entry['dtype']}; expected one of"
          f" {', '.join(_DTYPES)}. Save it as one of them."
      )
    dtype = _DTYPES[entry["dtype"]]
    place = start + entry["data_offsets"][0]
    tensors[name] = np.ndarray(entry["shape"], dtype, data, place)
  return tensors, metadata


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> None:
  """Writes a file, of arrays of the types that are read.

  Raises:
    UserError: It cannot be written; nothing has changed.
  """
  # The library takes the memory as it lies.
  tensors = {k: np.asarray(v, order="C") for k, v in tensors.items()}
  # Not by its `save_file`, whose files only their owner may read.
  with files.writing(path) as file:
    file.write(safetensors.numpy.save(tensors, dict(metadata)))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  values = dict(pairs)
  if len(values) < len(pairs):
    raise ValueError("a name is there twice in its header")
  return values
