"""Label maps as prepared datasets hold them: PNGs that decode fast."""

import cv2
import numpy as np

from ctxseg_jax.data import headers
from ctxseg_jax.data import images

_UNFILTERED = (
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_COMPRESSION, 6),
)
_GRAY = b"\x08\x00"  # Of 8 bits, in the header of a PNG.


def encode(label: np.ndarray) -> bytes:
  """Encodes a label map, uint8 [H, W], as a gray PNG with unfiltered rows.

  Filters suit photographs. Of areas of equal values they make larger files,
  which take three times as long to decode.
  """
  _, data = cv2.imencode(".png", label, _UNFILTERED)
  return data.tobytes()


def decode(data: bytes, name: str) -> np.ndarray:
  """Decodes a label map of a prepared dataset, uint8 [H, W].

  Raises:
    UserError: It is no such PNG.
  """
  label = None
  # OpenCV complains of a part of a file on standard error, and changes values
  # of less than 8 bits.
  if data[24:26] == _GRAY and not headers.lacks_end(data):
    buffer = np.frombuffer(data, np.uint8)
    label = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
  if label is None:
    # Pillow says what is wrong.
    return images.decode_label(data, name, verify=False)
  return label
