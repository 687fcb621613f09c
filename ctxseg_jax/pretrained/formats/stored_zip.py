"""Records of a zip archive as views of the file, when stored as they are.

`torch.save` compresses nothing. A record that is compressed is refused: so none
is larger than the file, and nothing is ever unpacked.
"""

import dataclasses
import mmap
import struct
import zipfile
import zlib

MOST_RECORDS = 100_000

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_CENTRAL_MAGIC = b"PK\x01\x02"
_ENCRYPTED = 1


class StoredZip:
  """The records of one archive.

  Attributes:
    records: All of them, by name.
  """

  def __init__(self, data: mmap.mmap):
    """Finds the records.

    Args:
      data: The whole archive.

    Raises:
      ValueError: It is cut short or damaged.
    """
    _check_count(data)
    try:
      with zipfile.ZipFile(data) as archive:
        found = archive.infolist()
    except Exception as error:  # A damaged archive can raise anything.
      reason = " ".join(str(error).split())[:100]
      raise ValueError(f"damaged zip archive ({reason})") from error
    if not found:
      raise ValueError("a zip archive without records")
    self._data = memoryview(data)
    self.records: dict[str, _Record] = {}
    end = 0
    for info in sorted(found, key=lambda info: info.header_offset):
      name = info.filename
      if name in self.records:
        raise ValueError(f"the record {name[:100]!r} is there twice")
      if info.header_offset < end:
        raise ValueError(f"{name[:100]!r} lies over another record")
      self.records[name] = _Record(info, self._find_start(info))
      end = self.records[name].end

  def read(self, name: str) -> memoryview:
    """Returns a record as a view of the file, with its checksum checked.

    Raises:
      ValueError: It is compressed or damaged.
    """
    record = self.records[name]
    if (
        record.info.compress_type != zipfile.ZIP_STORED
        or record.info.compress_size != record.info.file_size
        or record.info.flag_bits & _ENCRYPTED
    ):
      raise ValueError(f"the record {name[:100]!r} is compressed or encrypted")
    view = self._data[record.start : record.end]
    if zlib.crc32(view) != record.info.CRC:
      raise ValueError(f"the checksum of {name[:100]!r} is wrong")
    return view

  def _find_start(self, info: zipfile.ZipInfo) -> int:
    """Returns where a record itself starts, after its header."""
    start = info.header_offset
    header = self._data[start : start + _LOCAL_HEADER.size]
    if len(header) < _LOCAL_HEADER.size:
      raise ValueError(f"the record {info.filename[:100]!r} lies outside of it")
    magic, *lengths = _LOCAL_HEADER.unpack(header)
    if magic != _LOCAL_MAGIC:
      raise ValueError(f"no record where {info.filename[:100]!r} should be")
    start += len(header) + sum(lengths)
    if start + info.compress_size > len(self._data):
      raise ValueError(f"the record {info.filename[:100]!r} lies outside of it")
    return start


@dataclasses.dataclass(frozen=True)
class _Record:
  """Where a record is.

  Attributes:
    info: What the archive's list says of it.
    start: Where it starts in the file, after its header.
  """

  info: zipfile.ZipInfo
  start: int

  @property
  def end(self) -> int:
    return self.start + self.info.compress_size


def _check_count(data: mmap.mmap) -> None:
  """Refuses a list of records whose reading would take much memory."""
  position = -1
  for _ in range(MOST_RECORDS):
    position = data.find(_CENTRAL_MAGIC, position + 1)
    if position < 0:
      return
  raise ValueError(f"{MOST_RECORDS} records or more")
