"""Files of PyTorch 1.6 and later: a zip archive of one folder.

In it are a pickle `data.pkl`, which says what there is, and under `data/` the
storages. `torch.save` compresses nothing, so a compressed record is refused:
none can be larger than the file.
"""

import functools
import mmap
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


def read(data: mmap.mmap) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the weights of a whole file, by name and in its order, and its notes.

  Raises:
    UserError: It holds something else than weights.
    ValueError: It is cut short or damaged.
  """
  infos = _list_records(data)
  folder = _find_folder({info.filename for info in infos})
  records = _find_records(data, infos)

  @functools.cache  # The checksum of a storage that is shared is taken once.
  def find(name):
    if f"{folder}/{name}" not in records:
      return None
    view, checksum = records[f"{folder}/{name}"]
    if zlib.crc32(view) != checksum:
      shown = f"{folder}/{name}"[:100]
      raise ValueError(f"the checksum of {shown!r} is wrong")
    return view

  order = find("byteorder")
  if order is not None and order != sys.byteorder.encode():
    pth.refuse_byte_order(f"the byte order {bytes(order[:10])!r}")
  pickled = find("data.pkl")
  if pickled.nbytes > _LARGEST_PICKLE:
    raise ValueError(f"{pickled.nbytes} bytes in data.pkl")
  value = pickles.read(bytes(pickled))
  weights = pth.read_weights(value, lambda key: find(f"data/{key}"), len(data))
  return weights, pth.read_notes(value)


def _list_records(data: mmap.mmap) -> list[zipfile.ZipInfo]:
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
  if not found:
    raise ValueError("a zip archive without records")
  return found


def _find_folder(names: set[str]) -> str:
  """Returns the name of the one folder that holds all records."""
  folders = {name.split("/", 1)[0] for name in names}
  folder = min(folders)
  strange = [x for x in names if {"", ".", ".."} & set(re.split(r"[/\\]", x))]
  if len(folders) != 1 or strange:
    raise errors.UserError(
        f"a zip archive with the records {min(strange or names)[:100]!r} and"
        " others; expected the one folder that torch.save writes. Pass the file"
        " of the weights itself."
    )
  if f"{folder}/constants.pkl" in names:
    raise errors.UserError(
        "a TorchScript program; expected a state dict. Save "
        "torch.jit.load(file).state_dict() with PyTorch."
    )
  if f"{folder}/data.pkl" not in names:
    raise errors.UserError(
        "a zip archive without data.pkl; expected what torch.save writes. Pass "
        "the file of the weights itself."
    )
  return folder


def _find_records(
    data: mmap.mmap, infos: list[zipfile.ZipInfo]
) -> dict[str, tuple[memoryview, int]]:
  """Returns the content of each record and its checksum, yet to be checked."""
  records, end = {}, 0
  for info in sorted(infos, key=lambda info: info.header_offset):
    shown = repr(info.filename[:100])
    if info.filename in records:
      raise ValueError(f"the record {shown} is there twice")
    stored = info.compress_type == zipfile.ZIP_STORED
    encrypted = info.flag_bits & _ENCRYPTED
    if not stored or info.compress_size != info.file_size or encrypted:
      raise ValueError(f"the record {shown} is compressed or encrypted")
    if info.header_offset < end:
      raise ValueError(f"{shown} lies over another record")
    start = info.header_offset + _LOCAL_HEADER.size
    if start <= len(data):
      magic, *lengths = _LOCAL_HEADER.unpack_from(data, info.header_offset)
      if magic != MAGIC:
        raise ValueError(f"no record where {shown} should be")
      start += sum(lengths)
    end = start + info.file_size
    if end > len(data):
      raise ValueError(f"the record {shown} lies outside of it")
    records[info.filename] = memoryview(data)[start:end], info.CRC
  return records
