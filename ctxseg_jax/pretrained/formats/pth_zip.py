"""Files of PyTorch 1.6 and later: a zip archive of one folder.

In it a pickle `data.pkl`, which says what there is, and under `data/` the
storages as they lie in memory. `torch.save` compresses nothing; a record that
is compressed is refused, so that none is larger than the file.
"""

import mmap
import os
import re
import struct
import sys
import zipfile
import zlib

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import pickles
from ctxseg_jax.pretrained.formats import pth

MAGIC = b"PK\x03\x04"
MOST_RECORDS = 100_000

_LARGEST_PICKLE = 256 * 2**20  # Logs of a long training can be a tenth of it.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_CENTRAL_MAGIC = b"PK\x01\x02"
_ENCRYPTED = 1


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
    UserError: It holds something else than weights.
    ValueError: It is cut short or damaged; the message has no name of the file.
  """
  records = _list_records(data)
  folder = _find_folder(path, records)
  if f"{folder}/byteorder" in records:
    order = bytes(_read_record(data, records[f"{folder}/byteorder"])[:10])
    if order != sys.byteorder.encode():
      raise errors.UserError(
          f"{path}: written with the byte order {order!r}; expected "
          f"{sys.byteorder}. Load and save it with PyTorch on a machine such "
          "as this one."
      )
  pickled = _read_record(data, records[f"{folder}/data.pkl"])
  if pickled.nbytes > _LARGEST_PICKLE:
    raise ValueError(f"{pickled.nbytes} bytes in data.pkl")
  views = {}  # So that the checksum of one that is shared is taken once.

  def find_storage(key):
    info = records.get(f"{folder}/data/{key}")
    if info is not None and key not in views:
      views[key] = _read_record(data, info)
    return views.get(key)

  value = pickles.read(bytes(pickled))
  return pth.read_weights(path, value, find_storage, len(data))


def _list_records(data: mmap.mmap) -> dict[str, zipfile.ZipInfo]:
  """Returns what the archive says of its records, by name."""
  # Counted first: what is listed of a record takes much more memory.
  for count, _ in enumerate(re.finditer(_CENTRAL_MAGIC, data), start=1):
    if count == MOST_RECORDS:
      raise ValueError(f"{MOST_RECORDS} records or more")
  try:
    with zipfile.ZipFile(data) as archive:
      found = archive.infolist()
  except Exception as error:  # A damaged archive can raise anything.
    reason = " ".join(str(error).split())[:100]
    raise ValueError(f"damaged zip archive ({reason})") from error
  records, end = {}, 0
  for info in sorted(found, key=lambda info: info.header_offset):
    if info.filename in records:
      raise ValueError(f"the record {info.filename[:100]!r} is there twice")
    if info.header_offset < end:
      raise ValueError(f"{info.filename[:100]!r} lies over another record")
    records[info.filename] = info
    end = _find_start(data, info) + info.compress_size
  if not records:
    raise ValueError("a zip archive without records")
  return records


def _find_start(data: mmap.mmap, info: zipfile.ZipInfo) -> int:
  """Returns where a record itself starts, after its header."""
  start = info.header_offset + _LOCAL_HEADER.size
  if start <= len(data):
    magic, *lengths = _LOCAL_HEADER.unpack_from(data, info.header_offset)
    if magic != MAGIC:
      raise ValueError(f"no record where {info.filename[:100]!r} should be")
    start += sum(lengths)
  if start + info.compress_size > len(data):
    raise ValueError(f"the record {info.filename[:100]!r} lies outside of it")
  return start


def _read_record(data: mmap.mmap, info: zipfile.ZipInfo) -> memoryview:
  """Returns a record as a view of the file, with its checksum checked."""
  if (
      info.compress_type != zipfile.ZIP_STORED
      or info.compress_size != info.file_size
      or info.flag_bits & _ENCRYPTED
  ):
    raise ValueError(
        f"the record {info.filename[:100]!r} is compressed or encrypted"
    )
  start = _find_start(data, info)
  view = memoryview(data)[start : start + info.file_size]
  if zlib.crc32(view) != info.CRC:
    raise ValueError(f"the checksum of {info.filename[:100]!r} is wrong")
  return view


def _find_folder(
    path: str | os.PathLike[str], records: dict[str, zipfile.ZipInfo]
) -> str:
  """Returns the name of the one folder that holds all records."""
  folders = {name.split("/", 1)[0] for name in records}
  folder = min(folders)
  strange = [
      name
      for name in records
      if "\\" in name or {"", ".", ".."} & set(name.split("/"))
  ]
  if len(folders) != 1 or strange:
    raise errors.UserError(
        f"{path}: a zip archive with the records "
        f"{min(strange or records)[:100]!r} and others; expected the one folder"
        " that torch.save writes. Pass the file of the weights itself."
    )
  if f"{folder}/constants.pkl" in records:
    raise errors.UserError(
        f"{path}: a TorchScript program; expected a state dict. Save "
        "torch.jit.load(file).state_dict() with PyTorch."
    )
  if f"{folder}/data.pkl" not in records:
    raise errors.UserError(
        f"{path}: a zip archive without data.pkl; expected what torch.save "
        "writes. Pass the file of the weights itself."
    )
  return folder
