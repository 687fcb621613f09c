"""Encoded images and labels to arrays, with one rule for every odd file.

Images are JPEG or PNG and come out as RGB: gray and palette images are
converted, 16-bit ones reduced to their upper 8 bits, an alpha channel is
dropped. They are turned as their EXIF orientation says, which is how viewers
show and annotation tools label them.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import io
import os
import warnings

import cv2
import numpy as np
from PIL import ExifTags
from PIL import Image

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import headers

# A file of kilobytes can declare gigabytes of pixels.
MAX_PIXELS = 64_000_000

# The upper 8 bits of an image that uses at most 14 of its 16 stay below this.
_NEARLY_BLACK = 64

# Pillow warns of odd EXIF, which is overlooked.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")


def decode_image(
    data: bytes | os.PathLike | str,
    name: str | None = None,
    *,
    verify: bool = True,
) -> np.ndarray:
  """Decodes a JPEG or PNG to uint8 RGB, [H, W, 3], turned as EXIF says.

  Args:
    data: The encoded bytes, or the path of a file.
    name: What to call the image in messages; a path names itself.
    verify: Whether to find out first if the file is whole, by a second decode:
      OpenCV before 5 fills the rest of a truncated JPEG with gray. What was
      prepared has been verified.

  Raises:
    UserError: The file is unreadable, damaged, too large or of another format,
      or has 16 bits of which the upper ones are not used.
  """
  data, name = _read(data, name)
  if verify:
    verify_image(data, name)
  # OpenCV knows the orientation of JPEG alone.
  flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
  # Of an empty buffer it would raise.
  bgr = cv2.imdecode(np.frombuffer(data or b"0", np.uint8), flags)
  if bgr is None:
    # Pillow reads a PNG whose last bytes are lost, if every row is there.
    with _opened(data, name) as image:
      rgb = _to_rgb(image)
  else:
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
  return _turned(rgb, orientation(data))


def verify_image(data: bytes, name: str) -> tuple[int, int]:
  """Finds out if an image is whole; returns its height and width.

  They are those of `decode_image`, whose errors it raises.
  """
  with _opened(data, name) as image:
    _load_whole(image, data)
    if headers.is_deep(data):
      largest = int(_to_rgb(image).max())
      if largest < _NEARLY_BLACK:
        raise errors.UserError(
            f"{name}: 16-bit image of values below {(largest + 1) << 8}; "
            "expected the whole range up to 65535, since the upper 8 bits are "
            "used and would be nearly black. Scale its values, such as those "
            "of 12 bits by 16, or save it with 8 bits."
        )
    return _turned_size(image.size, data)


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
    verify: Whether to refuse missing rows, which Pillow leaves 0, for a third
      of the time more, and an EXIF orientation: whether the pixels were turned
      already, nobody knows.

  Returns:
    uint8 (uint16 for 16-bit labels), [H, W]: the gray values, or the indices of
    a palette image (not its colours).

  Raises:
    UserError: The file is unreadable or damaged, has several channels,
      another depth or unknown colours.
  """
  data, name = _read(data, name)
  # JPEG is refused because its losses change class ids.
  with _opened(data, name, formats=("PNG",)) as image:
    modes = ["L", "P"] + ["RGB"] * bool(colors) + ["I;16"] * deep
    if image.mode not in modes:
      raise errors.UserError(
          f"{name}: label of mode {image.mode}; expected one 8-bit channel of "
          f"class ids (gray or palette). {remedy}"
      )
    if verify:
      _load_whole(image, data)
      if orientation(data) != 1:
        raise errors.UserError(
            f"{name}: label with an EXIF orientation; expected none. Save it "
            "the way it should be seen, without EXIF."
        )
    array = np.array(image)
    depth, color_type = data[24], data[25]  # Of the header, which comes first.
    if color_type == 0 and depth in (2, 4):
      # Pillow spreads the values of shallow gray files over 0 to 255.
      array //= 255 // (2**depth - 1)
  return _color_ids(array, colors, name) if array.ndim == 3 else array


def orientation(data: bytes) -> int:
  """Returns the EXIF orientation, 1 to 8, of a JPEG or PNG; 1 if none."""
  # To search is faster than to open.
  if b"Exif\0\0" not in data and b"eXIf" not in data:
    return 1
  try:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
      value = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Viewers overlook damaged EXIF, too.
    return 1
  return value if value in range(1, 9) else 1


def image_size(data: bytes, name: str) -> tuple[int, int]:
  """Returns height and width of `decode_image`, from the header alone."""
  with _opened(data, name) as image:
    return _turned_size(image.size, data)


def encode_png(array: np.ndarray) -> bytes:
  """Encodes uint8 or uint16, [H, W] as gray or [H, W, 3] as RGB."""
  if array.ndim == 3:
    array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
  return cv2.imencode(".png", array)[1].tobytes()


def _read(
    data: bytes | os.PathLike | str, name: str | None
) -> tuple[bytes, str]:
  if isinstance(data, bytes):
    return data, name or "image"
  content = files.read_bytes(data, what="an image file")
  return content, name or files.printable(data)


def _to_rgb(image: Image.Image) -> np.ndarray:
  if image.mode == "I;16":  # Pillow would clip it.
    image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
  return np.array(image.convert("RGB"))


def _turned(array: np.ndarray, exif: int) -> np.ndarray:
  """Returns an array [H, W, C] as its EXIF orientation has it shown."""
  if exif >= 5:
    array = array.swapaxes(0, 1)
  if exif in (2, 3, 6, 7):
    array = array[:, ::-1]
  if exif in (3, 4, 7, 8):
    array = array[::-1]
  return np.ascontiguousarray(array)


def _turned_size(size: tuple[int, int], data: bytes) -> tuple[int, int]:
  """Returns (H, W) of a decoded image from Pillow's (W, H) of its file."""
  return size if orientation(data) >= 5 else size[::-1]


def _color_ids(
    rgb: np.ndarray, colors: Mapping[tuple[int, int, int], int], name: str
) -> np.ndarray:
  codes = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
  values, inverse, counts = np.unique(
      codes, return_inverse=True, return_counts=True
  )
  found = [(c >> 16, c >> 8 & 255, c & 255) for c in values.tolist()]
  for color, count in zip(found, counts, strict=True):
    if color not in colors:
      raise errors.UserError(
          f"{name}: RGB label with the colour {color} in {count} pixels, which "
          "is no class; expected class ids (gray or palette), or the colours "
          "of the dataset unchanged. Replace the file."
      )
  ids = np.array([colors[color] for color in found], np.uint8)
  return ids[inverse].reshape(codes.shape)


@contextlib.contextmanager
def _opened(
    data: bytes, name: str, formats: tuple[str, ...] = ("JPEG", "PNG")
) -> Iterator[Image.Image]:
  """Yields an image that is not loaded; damage becomes a `UserError`."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Of odd EXIF and of many pixels.
      with Image.open(io.BytesIO(data), formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
          raise errors.UserError(
              f"{name}: {image.height}x{image.width} pixels; expected at most "
              f"{MAX_PIXELS // 1_000_000} megapixels. Split or shrink the "
              "image."
          )
        yield image
  except errors.UserError:
    raise
  except Exception as error:  # A damaged file can lead Pillow anywhere.
    reason = " ".join(str(error).split())
    if isinstance(error, Image.UnidentifiedImageError):
      reason = "not such a file"  # Pillow's own text prints a BytesIO object.
    raise errors.UserError(
        f"{name}: cannot be decoded ({reason}); expected a whole "
        f"{' or '.join(formats)} file. Replace the file."
    ) from error


def _load_whole(image: Image.Image, data: bytes) -> None:
  """Decodes an image; one of which rows are missing is damaged."""
  image.load()
  if headers.lacks_rows(data):
    raise ValueError("rows of pixels are missing")
