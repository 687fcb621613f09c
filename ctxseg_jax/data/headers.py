"""What the bytes of a JPEG or PNG tell without being decoded.

References: the PNG specification, https://www.w3.org/TR/png-3; Exif 2.32, JEITA
CP-3451X, whose orientation is a tag of its TIFF header.
"""

from collections.abc import Iterator
import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PIECE = 1 << 20  # Bytes that are held at a time.
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION_TAG = 0x0112
_SHORT = 3  # The type of a number of 16 bits.

# First column, first row, and steps of the passes of an interlaced PNG.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def orientation(data: bytes) -> int:
  """Returns the EXIF orientation, 1 to 8, of a JPEG or PNG; 1 if none."""
  tiff = bytes(_exif(data))
  order = _TIFF_ORDERS.get(tiff[:4])
  if order is None:
    return 1
  try:
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for i in range(count):
      tag, kind, _, value = struct.unpack_from(
          f"{order}HHIH", tiff, start + 2 + 12 * i
      )
      if tag == _ORIENTATION_TAG and kind == _SHORT:
        return value if 1 <= value <= 8 else 1
  except struct.error:
    pass  # Cut short, which viewers overlook, too.
  return 1


def is_deep(data: bytes) -> bool:
  """Whether it is a PNG of 16 bits per channel."""
  return data.startswith(_PNG) and data[24] == 16


def lacks_end(data: bytes) -> bool:
  """Whether it is a PNG without its last chunk."""
  return data.startswith(_PNG) and b"IEND" not in data


def lacks_rows(data: bytes) -> bool:
  """Whether it is a PNG with less pixels than its header declares.

  Args:
    data: A PNG whose header was read, or another file.

  Raises:
    zlib.error: The pixels are damaged.
  """
  if not data.startswith(_PNG):
    return False
  inflater = zlib.decompressobj()
  missing = _num_raw_bytes(data)
  for kind, body in _png_chunks(data):
    while kind == b"IDAT" and body and missing > 0:
      missing -= len(inflater.decompress(body, _PIECE))
      body = inflater.unconsumed_tail
  return missing > 0


def _exif(data: bytes) -> bytes | memoryview:
  """Returns the block that holds the orientation; empty if there is none."""
  if data.startswith(_PNG):
    chunks = (body for kind, body in _png_chunks(data) if kind == b"eXIf")
    return next(chunks, b"")
  at = 2 if data.startswith(_JPEG) else len(data)
  while at + 4 <= len(data) and data[at] == 0xFF:
    marker, length = struct.unpack_from(">BH", data, at + 1)
    if marker == 0xDA:  # Pixels follow.
      break
    if marker == 0xFF:  # Padding.
      at += 1
      continue
    body = data[at + 4 : at + 2 + length]
    if marker == 0xE1 and body.startswith(b"Exif\0\0"):
      return body[6:]
    at += 2 + length
  return b""


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
