"""Label maps as prepared datasets hold them: PNGs that decode fast."""

import struct
import zlib

import cv2
import numpy as np

from ctxseg_jax.data import headers
from ctxseg_jax.data import images

_GRAY = b"\x08\x00"  # Of 8 bits, in the header of a PNG.


def encode(label: np.ndarray) -> bytes:
  """Encodes a label map, uint8 [H, W], as a gray PNG with unfiltered rows.

  Filters suit photographs. Of areas of equal values they make larger files,
  which take three times as long to decode.
  """
  height, width = label.shape
  rows = np.pad(label, ((0, 0), (1, 0)))  # A 0 before each: no filter.
  return b"\x89PNG\r\n\x1a\n" + b"".join(
      struct.pack(">I", len(body))
      + (kind + body)
      + struct.pack(">I", zlib.crc32(kind + body))
      for kind, body in (
          (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
          (b"IDAT", zlib.compress(rows)),
          (b"IEND", b""),
      )
  )


def decode(data: bytes, name: str) -> np.ndarray:
  """Decodes a label map of a prepared dataset, uint8 [H, W].

  Raises:
    UserError: It is no such PNG.
  """
  label = None
  # OpenCV makes a label of a part of a file, too, and changes values of less
  # than 8 bits.
  if data[24:26] == _GRAY and not headers.lacks_end(data):
    buffer = np.frombuffer(data, np.uint8)
    label = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
  if label is None or label.ndim != 2:
    # Pillow says what is wrong.
    return images.decode_label(data, name, verify=False)
  return label
