"""Encoded images and labels to arrays, with one rule for every odd file.

Images may be JPEG or PNG and come out as RGB: gray and palette images are
converted, 16-bit ones reduced to 8, an alpha channel is dropped. Labels are PNG
of one 8-bit channel, gray or palette, and come out as the raw indices; a
dataset may allow for 16 bits or for its colours in RGB. The EXIF orientation is
ignored everywhere, since masks do not carry one.
"""

from collections.abc import Iterator
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

# Bytes that a check holds at a time.
_PIECE = 1 << 20

# First column, first row, and steps of the passes of an interlaced PNG.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)

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
    _require_rows(data, image, name)
    return image.height, image.width


def decode_label(
    data: bytes | os.PathLike | str,
    name: str | None = None,
    *,
    colors: Mapping[tuple[int, int, int], int] | None = None,
    deep: bool = False,
    remedy: str = "Convert colour or 16-bit masks to class ids first.",
    verify: bool = True,
) -> np.ndarray:
  """Decodes a PNG label to its raw indices.

  Args:
    data: The encoded bytes, or the path of a file.
    name: What to call the label in messages; a path names itself.
    colors: Ids by RGB colour, to accept labels that were saved as RGB.
    deep: Whether to accept 16-bit labels.
    remedy: What to do about a label of another mode.
    verify: Whether to find out if rows are missing, which Pillow does not tell:
      it leaves them 0. Costs about a third more.

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
    if verify:
      _require_rows(data, image, name)
    array = np.array(image)
    depth, color_type = data[24], data[25]  # Of the header, which comes first.
    if color_type == 0 and depth in (2, 4):
      # Pillow spreads the values of shallow gray files over 0 to 255.
      array //= 255 // (2**depth - 1)
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


def _require_rows(data: bytes, image: Image.Image, name: str) -> None:
  """Refuses a PNG of which rows are missing although its stream has an end."""
  if image.format != "PNG":
    return
  inflater = zlib.decompressobj()
  missing = _num_raw_bytes(data, *image.size)
  for kind, body in _png_chunks(data):
    while kind == b"IDAT" and body and missing > 0:
      try:
        missing -= len(inflater.decompress(body, _PIECE))
      except zlib.error as error:
        raise _damaged(name, ("PNG",), error) from error
      body = inflater.unconsumed_tail
  if missing > 0:
    raise _damaged(name, ("PNG",), ValueError("rows of pixels are missing"))


def _num_raw_bytes(data: bytes, width: int, height: int) -> int:
  """Returns the size that the pixels of a PNG have before compression."""
  depth, color_type, interlaced = data[24], data[25], data[28]
  channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
  passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
  total = 0
  for left, top, right, down in passes:
    columns = -(-max(0, width - left) // right)
    rows = -(-max(0, height - top) // down)
    if columns:
      total += rows * (1 + -(-columns * channels * depth // 8))
  return total


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yields the kind and the content of each chunk, also of a cut one."""
  at = 8
  while at + 8 <= len(data):
    (length,) = struct.unpack_from(">I", data, at)
    yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
    at += 12 + length


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
