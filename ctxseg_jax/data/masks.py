"""Labels as programs and people save them, to train ids.

PNG, TIFF or BMP, which lose nothing: 1 to 16 bits, gray or palette, of values
that the specification gives a meaning, or RGB of its colours. Three equal
channels hold values where classes have no colours.
"""

import pathlib

import numpy as np
from PIL import ExifTags
from PIL import Image

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import colors
from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib

_REMEDY = (
    "Write the colours of each class in classes.txt, as in car = 0,0,142, or "
    "convert masks to class ids."
)


def decode(spec: spec_lib.DatasetSpec, path: pathlib.Path) -> np.ndarray:
  """Reads a label to train ids and `ignore_label`, uint8 [H, W].

  Raises:
    UserError: As `read`.
    UnknownValuesError: It holds what means nothing.
  """
  name = files.printable(path)
  array = read(path, is_rgb=bool(spec.colors))
  if array.ndim == 3:
    return colors.ids(array, spec.colors, name, _REMEDY)
  return spec.map_label(array, name)


def read(path: pathlib.Path, *, is_rgb: bool) -> np.ndarray:
  """Reads a label to values, uint16 [H, W], or to RGB, uint8 [H, W, 3].

  Args:
    path: The file.
    is_rgb: Whether classes have colours, so that RGB of equal channels is RGB.

  Raises:
    UserError: The file is unreadable or damaged, of another kind, or would have
      to be turned: whether its pixels were turned already, nobody knows.
  """
  data = files.read_bytes(path, what="an image file")
  name = files.printable(path)
  if data.startswith(b"\xff\xd8\xff"):
    raise errors.UserError(
        f"{name}: label as JPEG, whose losses change values; expected PNG, "
        "TIFF or BMP. Make it anew as PNG; of black and white ones a copy as "
        "PNG will do with ranges in classes.txt, such as = 0-127 and = 128-255."
    )
  with images.opened(data, name, ("PNG", "TIFF", "BMP")) as image:
    _check_header(image, data, name)
    depth = data[24] if image.format == "PNG" else _depth(image)
    images.load_whole(image, data)
    if image.mode in ("LA", "RGBA"):
      if image.getchannel("A").getextrema() != (255, 255):
        raise _unusable(name, f"of mode {image.mode} with transparent pixels")
      image = image.convert(image.mode[:-1])
    array = np.array(image)
  if image.mode == "RGB":
    if is_rgb or (array != array[..., :1]).any():
      return array
    array = array[..., 0]
  elif image.mode == "L" and depth in (2, 4):
    # Pillow spreads the values of shallow gray files over 0 to 255.
    array //= 255 // (2**depth - 1)
  elif image.mode == "I" and not 0 <= array.min() <= array.max() < 1 << 16:
    raise _unusable(name, f"of values {array.min()} to {array.max()}")
  return array.astype(np.uint16)


def _check_header(image: Image.Image, data: bytes, name: str) -> None:
  modes = ("1", "L", "P", "I", "I;16", "I;16B", "LA", "RGB", "RGBA")
  deep = images.is_deep(image, data)
  if image.mode not in modes or (deep and "I" not in image.mode):
    bits = " and 16 bits" if deep else ""
    raise _unusable(name, f"of mode {image.mode}{bits}")
  if getattr(image, "n_frames", 1) > 1:
    raise _unusable(name, f"of {image.n_frames} pages")
  turned = images.orientation(data)
  if image.format == "TIFF":
    turned = image.getexif().get(ExifTags.Base.Orientation, 1)
  if turned != 1:
    raise errors.UserError(
        f"{name}: label with an EXIF orientation; expected none. Save it the "
        "way it should be seen, without EXIF."
    )


def _depth(image: Image.Image) -> int:
  return images.bits_per_sample(image)[0]


def _unusable(name: str, what: str) -> errors.UserError:
  return errors.UserError(
      f"{name}: label {what}; expected one channel of class ids or values up "
      "to 65535 (gray or palette), or the colours of the classes in 8-bit RGB. "
      "Save it as such a PNG."
  )
