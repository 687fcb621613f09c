"""What the chunks of a PNG and the segments of a JPEG tell, without decoding.

References: the PNG specification, https://www.w3.org/TR/png-3; ITU-T T.81
(JPEG), annex B.
"""

from collections.abc import Iterator
import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"

# First column, first row, and steps of the passes of an interlaced PNG.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def may_have_exif(data: bytes) -> bool:
  """Whether EXIF may be in a JPEG, PNG or WebP.

  To search is faster than to open. In a JPEG it comes before the pixels, which
  are most of the file.
  """
  if data.startswith(b"\xff\xd8"):
    data = data[: _start_of_pixels(data)]
  return any(mark in data for mark in (b"Exif\0\0", b"eXIf", b"EXIF"))


def _start_of_pixels(data: bytes) -> int:
  """Returns where the scan of a JPEG begins; the end of what is no JPEG."""
  at = 2
  while at + 4 <= len(data) and data[at] == 0xFF:
    if data[at + 1] == 0xDA:
      return at
    at += 2 + int.from_bytes(data[at + 2 : at + 4])
  return len(data)


def is_deep(data: bytes) -> bool:
  """Whether it is a PNG of 16 bits per channel."""
  return data.startswith(_PNG) and data[24] == 16


def lacks_end(data: bytes) -> bool:
  """Whether it is a PNG without its last chunk."""
  return data.startswith(_PNG) and b"IEND" not in data


def lacks_rows(data: bytes) -> bool:
  """Whether it is a PNG, its header sound, with less pixels than that declares.

  Raises:
    zlib.error: The pixels are damaged.
  """
  if not data.startswith(_PNG):
    return False
  inflater = zlib.decompressobj()
  missing = _num_raw_bytes(data)
  for kind, body in _png_chunks(data):
    # A megabyte at a time, of what may be hundreds.
    while kind == b"IDAT" and body and missing > 0:
      missing -= len(inflater.decompress(body, 1 << 20))
      body = inflater.unconsumed_tail
  return missing > 0


def _num_raw_bytes(data: bytes) -> int:
  """Returns the size that the pixels of a PNG have before compression."""
  width, height, depth, color_type = struct.unpack_from(">IIBB", data, 16)
  channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
  passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
  total = 0
  for left, top, right, down in passes:
    columns = -(-max(0, width - left) // right)
    rows = -(-max(0, height - top) // down)
    if columns:
      total += rows * (1 + -(-columns * channels * depth // 8))
  return total


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
  """Yields the kind and the content of each chunk, also of a cut one."""
  view = memoryview(data)  # Slices of it are no copies.
  at = 8
  while at + 8 <= len(data):
    (length,) = struct.unpack_from(">I", data, at)
    yield data[at + 4 : at + 8], view[at + 8 : at + 8 + length]
    at += 12 + length
