"""Files of PyTorch before 1.6, as many of those published still are.

One after the other: a magic number, the version, what the machine was like, the
pickle that says what there is, the keys of the storages, and the storages, each
after its size. There is no checksum: damage shows only where sizes disagree.
"""

import mmap
import sys
from typing import Any

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import pickles
from ctxseg_jax.pretrained.formats import pth

MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # Within a pickle.

_VERSION = 1001
_SIZE_BYTES = 8


def read(data: mmap.mmap) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the weights of a whole file; results and errors as `pth_zip.read`."""
  noted = []

  def note(key: Any) -> Any:
    match key:
      # A class is outside as well, for its source that goes with it.
      case ("module", type() as kind, *_):
        return kind
    noted.append(pickles.Outside(key))
    return noted[-1]

  data.seek(0)
  magic, version, machine = (pickles.read(data) for _ in range(3))
  if magic != int.from_bytes(MAGIC, "little") or version != _VERSION:
    raise ValueError("another version of the format")
  is_little = isinstance(machine, dict) and machine.get("little_endian")
  if is_little is not (sys.byteorder == "little"):
    pth.refuse_byte_order("another byte order")
  value = pickles.read(data, outside=note)
  keys = pickles.read(data)
  try:
    storages = {x.key: x for x in map(pth.read_storage, noted)}
  except pth.Unsupported as error:
    # Its length is unknown, and so is where the next one starts.
    raise errors.UserError(f"holds a storage {error}; {pth.DENSE}") from error
  if not isinstance(keys, list):
    raise ValueError(f"{pickles.describe(keys)} for the keys of storages")
  views = {}
  start = data.tell()
  for key in map(pth.as_text, keys):
    if not isinstance(key, str) or key not in storages or key in views:
      raise ValueError("storages other than those of its tensors")
    size = int.from_bytes(data[start : start + _SIZE_BYTES], "little")
    start += _SIZE_BYTES
    end = start + size * storages[key].dtype.itemsize
    if size != storages[key].size or end > len(data):
      raise ValueError(
          f"a storage of {size} values at byte {start} of {len(data)}, where "
          f"{storages[key].size} should be"
      )
    views[key] = memoryview(data)[start:end]
    start = end
  if start != len(data):
    raise ValueError(f"{len(data) - start} bytes more than its storages")
  return pth.read_weights(value, views.get, len(data)), pth.read_notes(value)
