"""Encoded images and labels to arrays, with one rule for every odd file.

Images may be JPEG or PNG and come out as RGB: gray and palette images are
converted, 16-bit ones reduced to 8, an alpha channel is dropped. Labels are PNG
of one 8-bit channel, gray or palette, and come out as the raw indices; a
dataset may allow for 16 bits or for its colours in RGB. The EXIF orientation is
ignored everywhere, since masks do not carry one.
"""

from collections.abc import Mapping
import io
import os
import pathlib
import struct
import warnings
import zlib

import cv2
import numpy as np
from PIL import Image

from ctxseg_jax import errors

# A file of kilobytes can declare gigabytes of pixels.
MAX_PIXELS = 64_000_000

# What Pillow's readers raise on damaged files of these two formats.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_bytes(path: os.PathLike | str, name: str | None = None) -> bytes:
  """Reads a file; one that cannot be read is a `UserError` that names it."""
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise errors.UserError(
        f"{name or path}: cannot be read ({error.strerror}); expected an image "
        "file. Check the path and its permissions."
    ) from error


def decode_image(
    data: bytes | os.PathLike | str,
    name: str | None = None,
    *,
    verify: bool = True,
) -> np.ndarray:
  """Decodes a JPEG or PNG image.

  Args:
    data: The encoded bytes, or the path of a file.
    name: What to call the image in messages; a path names itself.
    verify: Whether to find out first if the file is whole, which OpenCV before
      5 does not tell: it fills the rest of a truncated JPEG with gray. Costs a
      second decode; for bytes that were verified when the dataset was
      prepared, skip it.

  Returns:
    uint8 RGB, [H, W, 3].

  Raises:
    UserError: The file is unreadable, damaged, too large or of another format.
  """
  data, name = _read(data, name)
  if verify:
    verify_image(data, name)
  flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
  bgr = None
  if data:  # OpenCV raises on an empty buffer instead of returning None.
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  if bgr is None:
    # Pillow reads a PNG whose last bytes are lost, if every row is there.
    with _open(data, name, formats=("JPEG", "PNG")) as image:
      _load(image, name)
      if image.mode == "I;16":  # Pillow would clip it.
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
      return np.array(image.convert("RGB"))
  return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def verify_image(data: bytes, name: str) -> tuple[int, int]:
  """Decodes an image in full to find out whether it is whole.

  Args:
    data: The encoded bytes.
    name: What to call the image in messages.

  Returns:
    Its height and width.

  Raises:
    UserError: As `decode_image`.
  """
  with _open(data, name, formats=("JPEG", "PNG")) as image:
    _load(image, name)
    return image.height, image.width


def decode_label(
    data: bytes | os.PathLike | str,
    name: str | None = None,
    *,
    colors: Mapping[tuple[int, int, int], int] | None = None,
    deep: bool = False,
    remedy: str = "Convert colour or 16-bit masks to class ids first.",
) -> np.ndarray:
  """Decodes a PNG label to its raw indices.

  Args:
    data: The encoded bytes, or the path of a file.
    name: What to call the label in messages; a path names itself.
    colors: Ids by RGB colour, to accept labels that were saved as RGB.
    deep: Whether to accept 16-bit labels.
    remedy: What to do about a label of another mode.

  Returns:
    uint8 (uint16 for 16-bit labels), [H, W]: the gray values, or the indices of
    a palette image (not its colours).

  Raises:
    UserError: The file is unreadable or damaged, has several channels,
      another depth or unknown colours.
  """
  data, name = _read(data, name)
  # JPEG is refused because its losses change class ids.
  with _open(data, name, formats=("PNG",)) as image:
    modes = {"L", "P"}
    modes |= {"RGB"} if colors else set()
    modes |= {"I;16"} if deep else set()
    if image.mode not in modes:
      raise errors.UserError(
          f"{name}: label of mode {image.mode}; expected one 8-bit channel of "
          f"class ids (gray or palette). {remedy}"
      )
    _load(image, name)
    array = np.array(image)
  return _color_ids(array, colors, name) if array.ndim == 3 else array


def image_size(data: bytes, name: str) -> tuple[int, int]:
  """Returns height and width from the header alone."""
  with _open(data, name, formats=("JPEG", "PNG")) as image:
    return image.height, image.width


def encode_png(array: np.ndarray) -> bytes:
  """Encodes uint8 [H, W] as gray or [H, W, 3] as RGB."""
  if array.ndim == 3:
    array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
  done, data = cv2.imencode(".png", array)
  if not done:
    raise ValueError(f"Cannot encode {array.dtype} {array.shape} as PNG.")
  return data.tobytes()


def _read(
    data: bytes | os.PathLike | str, name: str | None
) -> tuple[bytes, str]:
  if isinstance(data, bytes):
    return data, name or "image"
  return read_bytes(data, name), name or str(data)


def _color_ids(
    rgb: np.ndarray, colors: Mapping[tuple[int, int, int], int], name: str
) -> np.ndarray:
  codes = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
  table = {(r << 16) + (g << 8) + b: i for (r, g, b), i in colors.items()}
  values, inverse, counts = np.unique(
      codes, return_inverse=True, return_counts=True
  )
  for code, count in zip(values.tolist(), counts, strict=True):
    if code not in table:
      color = (code >> 16, code >> 8 & 255, code & 255)
      raise errors.UserError(
          f"{name}: RGB label with the colour {color} in {count} pixels, which "
          "is no class; expected class ids (gray or palette), or the colours "
          "of the dataset unchanged. Replace the file."
      )
  ids = np.array([table[code] for code in values.tolist()], np.uint8)
  return ids[inverse].reshape(codes.shape)


def _open(data: bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
  try:
    with warnings.catch_warnings():
      # Pillow warns from 89 MP on; the limit below is ours and an error.
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)
      image = Image.open(io.BytesIO(data), formats=formats)
  except _DAMAGE as error:
    raise _damaged(name, formats, error) from error
  if image.width * image.height > MAX_PIXELS:
    raise errors.UserError(
        f"{name}: {image.height}x{image.width} pixels; expected at most "
        f"{MAX_PIXELS // 1_000_000} megapixels. Split or shrink the image."
    )
  return image


def _load(image: Image.Image, name: str) -> None:
  try:
    image.load()
  except _DAMAGE as error:
    raise _damaged(name, (image.format,), error) from error


def _damaged(
    name: str, formats: tuple[str, ...], error: Exception
) -> errors.UserError:
  reason = " ".join(str(error).split())
  if isinstance(error, Image.UnidentifiedImageError):
    reason = "not such a file"  # Pillow's own text prints a BytesIO object.
  return errors.UserError(
      f"{name}: cannot be decoded ({reason}); expected a whole "
      f"{' or '.join(formats)} file. Replace the file."
  )
