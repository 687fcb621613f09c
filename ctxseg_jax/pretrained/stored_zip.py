"""Records of a zip archive as views of the file, when stored as they are.

`torch.save` compresses nothing. An archive that does is refused: a record is
then never larger than the file, and none is ever unpacked.
"""

import mmap
import struct
import zipfile
import zlib

MOST_RECORDS = 100_000

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_CENTRAL_MAGIC = b"PK\x01\x02"
_ENCRYPTED = 1


class StoredZip:
  """The records of one archive.

  Attributes:
    spans: By name, start and end of a record in the file.
  """

  def __init__(self, data: mmap.mmap):
    """Finds the records.

    Args:
      data: The whole archive.

    Raises:
      ValueError: It is cut short, damaged, or not stored as it is.
    """
    _check_count(data)
    try:
      with zipfile.ZipFile(data) as archive:
        records = archive.infolist()
    except Exception as error:  # A damaged archive can raise anything.
      reason = " ".join(str(error).split())[:100]
      raise ValueError(f"damaged zip archive ({reason})") from error
    self.spans: dict[str, tuple[int, int]] = {}
    self._sums: dict[str, int] = {}
    self._data = memoryview(data)
    for record in records:
      name = record.filename
      if name in self.spans:
        raise ValueError(f"the record {name[:100]!r} is there twice")
      self.spans[name] = self._find(record)
      self._sums[name] = record.CRC
    end = 0
    for record in sorted(records, key=lambda record: record.header_offset):
      if record.header_offset < end:
        raise ValueError("two records lie over each other")
      end = self.spans[record.filename][1]

  def read(self, name: str) -> memoryview:
    """Returns a record as a view of the file, with its checksum checked."""
    start, end = self.spans[name]
    view = self._data[start:end]
    if zlib.crc32(view) != self._sums[name]:
      raise ValueError(f"the checksum of {name[:100]!r} is wrong")
    return view

  def _find(self, record: zipfile.ZipInfo) -> tuple[int, int]:
    name = record.filename
    if (
        record.compress_type != zipfile.ZIP_STORED
        or record.compress_size != record.file_size
        or record.flag_bits & _ENCRYPTED
    ):
      raise ValueError(f"the record {name[:100]!r} is compressed or encrypted")
    header = self._data[record.header_offset :][: _LOCAL_HEADER.size]
    if record.header_offset < 0 or len(header) < _LOCAL_HEADER.size:
      raise ValueError(f"the record {name[:100]!r} lies outside the file")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if magic != b"PK\x03\x04":
      raise ValueError(f"there is no record where {name[:100]!r} should be")
    start = record.header_offset + len(header) + name_length + extra_length
    end = start + record.file_size
    if end > len(self._data):
      raise ValueError(f"the record {name[:100]!r} lies outside the file")
    return start, end


def _check_count(data: mmap.mmap) -> None:
  """Refuses a list of records whose reading would take much memory."""
  position = -1
  for _ in range(MOST_RECORDS):
    position = data.find(_CENTRAL_MAGIC, position + 1)
    if position < 0:
      return
  raise ValueError(f"{MOST_RECORDS} records or more")
