"""Encoded images and labels to arrays, with one rule for every odd file.

Images are JPEG, PNG, TIFF, BMP or WebP and come out as RGB: gray and palette
images are converted, 16-bit ones reduced to their upper 8 bits, an alpha
channel is dropped, and of several pages or frames the first is taken. They are
turned as their EXIF orientation says, which is how viewers show and annotation
tools label them. What is prepared holds JPEG and PNG only.
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
from ctxseg_jax.data import colors as colors_lib
from ctxseg_jax.data import headers

# A file of kilobytes can declare gigabytes of pixels.
MAX_PIXELS = 64_000_000

# The upper 8 bits of an image that uses at most 14 of its 16 stay below this.
_NEARLY_BLACK = 64

_STORED = ("JPEG", "PNG")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG")
# Modes of 8 and 16 bits per channel, of which RGB can be made.
_MODES = (
    *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"),
    *("I;16", "I;16B"),
)
_BITS_PER_SAMPLE = 258  # Tag of TIFF.

# Pillow warns of odd EXIF and of many pixels. A filter is for all threads, so
# it is set once.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(
    data: bytes | os.PathLike | str,
    name: str | None = None,
    *,
    verify: bool = True,
) -> np.ndarray:
  """Decodes an image to uint8 RGB, [H, W, 3], turned as EXIF says.

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
  if not _is_stored(data):
    return _decode_other(data, name)
  if verify:
    verify_image(data, name)
  # OpenCV knows the orientation of JPEG alone.
  flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
  # Of an empty buffer it would raise.
  bgr = cv2.imdecode(np.frombuffer(data or b"0", np.uint8), flags)
  if bgr is None:
    # Pillow reads a PNG whose last bytes are lost, if every row is there.
    with opened(data, name, _STORED) as image:
      rgb = _to_rgb(image)
  else:
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
  return _turned(rgb, orientation(data))


def to_stored(data: bytes, name: str) -> bytes:
  """Returns an image as it is kept: JPEG and PNG as they are, others as PNG.

  Errors are those of `decode_image`; JPEG and PNG are not looked at.
  """
  return data if _is_stored(data) else encode_png(_decode_other(data, name))


def verify_image(data: bytes, name: str) -> tuple[int, int]:
  """Finds out if a JPEG or PNG is whole; returns its height and width.

  They are those of `decode_image`, whose errors it raises.
  """
  with opened(data, name, _STORED) as image:
    load_whole(image, data)
    if headers.is_deep(data):
      _refuse_dark(_to_rgb(image), name)
    return _turned_size(image.size, data)


def decode_label(
    data: bytes | os.PathLike | str,
    name: str | None = None,
    *,
    colors: Mapping[tuple[int, int, int], int] | None = None,
    deep: bool = False,
    verify: bool = True,
) -> np.ndarray:
  """Decodes a PNG label to its raw indices.

  Args:
    data: The encoded bytes, or the path of a file.
    name: What to call the label in messages; a path names itself.
    colors: Ids by RGB colour, to accept labels that were saved as RGB.
    deep: Whether to accept 16-bit labels.
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
  with opened(data, name, ("PNG",)) as image:
    modes = ["L", "P"] + ["RGB"] * bool(colors) + ["I;16"] * deep
    if image.mode not in modes:
      raise errors.UserError(
          f"{name}: label of mode {image.mode}; expected one 8-bit channel of "
          f"class ids (gray or palette). Convert colour or 16-bit masks to "
          "class ids first."
      )
    if verify:
      load_whole(image, data)
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
  return colors_lib.ids(array, colors, name) if array.ndim == 3 else array


def orientation(data: bytes) -> int:
  """Returns the EXIF orientation, 1 to 8, of JPEG, PNG or WebP; 1 if none."""
  if not headers.may_have_exif(data):
    return 1
  try:
    with Image.open(io.BytesIO(data), formats=(*_STORED, "WEBP")) as image:
      value = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Viewers overlook damaged EXIF, too.
    return 1
  return value if value in range(1, 9) else 1


def image_size(data: bytes, name: str) -> tuple[int, int]:
  """Returns height and width of `decode_image`, of JPEG and PNG by the header.

  Raises:
    UserError: As `decode_image`.
  """
  if not _is_stored(data):
    return _decode_other(data, name).shape[:2]
  with opened(data, name, _STORED) as image:
    return _turned_size(image.size, data)


def encode_png(array: np.ndarray) -> bytes:
  """Encodes uint8 or uint16, [H, W] as gray or [H, W, 3] as RGB."""
  if array.ndim == 3:
    array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
  return cv2.imencode(".png", array)[1].tobytes()


def encode_jpeg(array: np.ndarray, quality: int = 85) -> bytes:
  """Encodes an image, RGB uint8 [H, W, 3], with a quality up to 95."""
  data = io.BytesIO()
  Image.fromarray(array).save(data, "JPEG", quality=quality)
  return data.getvalue()


def _read(
    data: bytes | os.PathLike | str, name: str | None
) -> tuple[bytes, str]:
  if isinstance(data, bytes):
    return data, name or "image"
  content = files.read_bytes(data, what="an image file")
  return content, name or files.printable(data)


def _is_stored(data: bytes) -> bool:
  """Whether an image is none of the formats that are only read once."""
  # What is no image at all is of the other decoder, whose message names all.
  return data.startswith(_SIGNATURES)


def _decode_other(data: bytes, name: str) -> np.ndarray:
  with opened(data, name, (*_STORED, "TIFF", "BMP", "WEBP")) as image:
    if image.mode not in _MODES:
      raise errors.UserError(
          f"{name}: image of mode {image.mode}; expected 8 or 16 bits per "
          "channel. Save it with 8 bits."
      )
    deep = is_deep(image, data)
    rgb = _to_rgb(image)  # Pillow has turned a TIFF then.
    if deep:
      _refuse_dark(rgb, name)
    return _turned(rgb, orientation(data))


def _refuse_dark(rgb: np.ndarray, name: str) -> None:
  largest = int(rgb.max())
  if largest < _NEARLY_BLACK:
    raise errors.UserError(
        f"{name}: 16-bit image of values below {(largest + 1) << 8}; expected "
        "the whole range up to 65535, since the upper 8 bits are used and "
        "would be nearly black. Scale its values, such as those of 12 bits by "
        "16, or save it with 8 bits."
    )


def is_deep(image: Image.Image, data: bytes) -> bool:
  """Whether an opened image has 16 bits per channel."""
  return headers.is_deep(data) or bits_per_sample(image)[0] == 16


def bits_per_sample(image: Image.Image) -> tuple[int, ...]:
  """Returns the bits of each channel of a TIFF; (0,) of another file."""
  tags = getattr(image, "tag_v2", {})
  return tags.get(_BITS_PER_SAMPLE, (0,))


def _to_rgb(image: Image.Image) -> np.ndarray:
  if image.mode.startswith("I;16"):  # Pillow would clip it.
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


@contextlib.contextmanager
def opened(
    data: bytes, name: str, formats: tuple[str, ...]
) -> Iterator[Image.Image]:
  """Yields an image that is not loaded; damage becomes a `UserError`."""
  try:
    with Image.open(io.BytesIO(data), formats=formats) as image:
      if image.width * image.height > MAX_PIXELS:
        raise errors.UserError(
            f"{name}: {image.height}x{image.width} pixels; expected at most "
            f"{MAX_PIXELS // 1_000_000} megapixels. Split or shrink the image."
        )
      yield image
  except errors.UserError:
    raise
  except Exception as error:  # A damaged file can lead Pillow anywhere.
    reason = " ".join(str(error).split())
    if isinstance(error, Image.UnidentifiedImageError):
      reason = "not such a file"  # Pillow's own text prints a BytesIO object.
    expected = " or ".join(filter(None, (", ".join(formats[:-1]), formats[-1])))
    raise errors.UserError(
        f"{name}: cannot be decoded ({reason}); expected a whole {expected} "
        "file. Replace the file."
    ) from error


def load_whole(image: Image.Image, data: bytes) -> None:
  """Decodes an image; one of which rows are missing is damaged."""
  image.load()
  if headers.lacks_rows(data):
    raise ValueError("rows of pixels are missing")
