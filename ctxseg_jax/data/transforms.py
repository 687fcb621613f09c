"""Random scale, rotation, flip and crop, as one affine warp for label maps.

Every pixel is sampled once instead of once per step, which is less blur and
less time. As in a bilinear resize nothing is filtered when it shrinks, so a
scale of 0.5 aliases slightly.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Annotated
from typing import Any

import cv2
import numpy as np

from ctxseg_jax import bounds
from ctxseg_jax import errors
from ctxseg_jax.data import images

_Side = Annotated[int, bounds.Bounds(1, 32_766)]  # OpenCV warps no larger one.
# Beyond these a crop is one pixel of the image, or all of it is one pixel.
_Scale = Annotated[float, bounds.Bounds(0.001, 1000)]
_Degrees = Annotated[float, bounds.Bounds(0, 180)]
_Padding = Annotated[int, bounds.Bounds(0, 1000)]


def fit_scale(
    size: Sequence[int], short_side: int | None, long_side: int | None
) -> float:
  """Returns the largest factor by which an image fits both sides.

  It is above 1 for a small image, and 1 if both sides are None.
  mmsegmentation's resize to `(2048, 512)` is that of `short_side=512,
  long_side=2048`.
  """
  bounded = ((short_side, min(size)), (long_side, max(size)))
  factors = [bound / side for bound, side in bounded if bound is not None]
  return min(factors, default=1.0)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Draws a warp and applies it to an image and its label.

  With the defaults only the place of the crop is drawn.

  Attributes:
    crop_size: Height and width of the result.
    scale_range: Smallest and largest scale; uniform between them.
    short_side: With `long_side`, the size that a scale of 1 stands for, as of
      `fit_scale`; without them, the image's own.
    long_side: See `short_side`.
    rotation: Largest rotation to either side, in degrees.
    flip: Whether to mirror left and right half of the time.
    center: Crop the centre, instead of a place that is drawn.
    pad_color: RGB around the image, usually the mean of the dataset.
    ignore_label: Label around the image.
  """

  crop_size: tuple[_Side, _Side]
  scale_range: tuple[_Scale, _Scale] = (1.0, 1.0)
  rotation: _Degrees = 0.0
  flip: bool = False
  center: bool = False
  short_side: _Side | None = None
  long_side: _Side | None = None
  pad_color: tuple[float, float, float] = (127.5, 127.5, 127.5)
  ignore_label: int = 255

  def __post_init__(self):
    bounds.check_fields(self)
    _check_pixels(self.crop_size)
    if self.scale_range[0] > self.scale_range[1]:
      raise ValueError(
          f"scale_range: expected (smallest, largest), got {self.scale_range}"
      )

  def draw(
      self, rng: np.random.Generator, height: int, width: int
  ) -> np.ndarray:
    """Draws the `crop_matrix` for an image of a size.

    All random numbers are drawn whatever the settings, so that switching one
    part off leaves the others as they were.
    """
    scale = rng.uniform(*self.scale_range)
    scale *= fit_scale((height, width), self.short_side, self.long_side)
    degrees = rng.uniform(-1, 1) * self.rotation
    flip = rng.uniform() < 0.5 and self.flip
    position = rng.uniform(size=2)
    if self.center:
      position[:] = 0.5
    # Whole pixels of the scaled image, so that a crop alone is not resampled.
    # A crop larger than the image puts the image anywhere inside it.
    room = np.rint(np.multiply((height, width), scale)) - self.crop_size
    top, left = np.minimum(0, room) + np.floor(position * (np.abs(room) + 1))
    return crop_matrix(
        self.crop_size, top, left, scale=scale, degrees=degrees, flip=flip
    )

  def __call__(
      self, example: Mapping[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Returns a random crop of `"image"` uint8 [H, W, 3], `"label"` [H, W]."""
    matrix = self.draw(rng, *example["label"].shape)
    warped = {}
    for name, rule, outside in (
        ("image", cv2.INTER_LINEAR, self.pad_color),
        ("label", cv2.INTER_NEAREST, self.ignore_label),
    ):
      warped[name] = cv2.warpAffine(
          example[name],
          matrix,
          self.crop_size[::-1],
          flags=rule | cv2.WARP_INVERSE_MAP,
          borderMode=cv2.BORDER_CONSTANT,
          borderValue=outside,
      )
    return warped


@dataclasses.dataclass(frozen=True)
class PaddedCrop:
  """Crops an image that has one class, after padding it with black.

  As PyTorch's RandomCrop(size, padding) and RandomHorizontalFlip, the usual
  augmentation of CIFAR: whole pixels, nothing is resampled.

  Attributes:
    crop_size: Height and width of the result.
    padding: Rows and columns of zeros on each side.
    flip: Whether to mirror left and right half of the time.
  """

  crop_size: tuple[_Side, _Side]
  padding: _Padding = 0
  flip: bool = False

  def __post_init__(self):
    bounds.check_fields(self)
    _check_pixels(self.crop_size)

  def __call__(
      self, example: Mapping[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Returns a random crop of `"image"` uint8 [H, W, 3], and `"label"` [].

    Raises:
      UserError: The padded image is smaller than the crop.
    """
    pad = (self.padding, self.padding)
    image = np.pad(example["image"], (pad, pad, (0, 0)))
    height, width = self.crop_size
    room = np.subtract(image.shape[:2], self.crop_size)
    if min(room) < 0:
      raise errors.UserError(
          f"config: data.crop_size: {self.crop_size} is larger than an image "
          f"of {image.shape[0]}x{image.shape[1]} with its padding; expected at "
          "most that. Change the config."
      )
    top, left = np.floor(rng.uniform(size=2) * (room + 1)).astype(int)
    flip = rng.uniform() < 0.5 and self.flip
    image = image[top : top + height, left : left + width]
    image = np.ascontiguousarray(image[:, ::-1] if flip else image)
    return {"image": image, "label": example["label"]}


def crop_matrix(
    crop_size: tuple[int, int],
    top: float,
    left: float,
    *,
    scale: float,
    degrees: float,
    flip: bool,
) -> np.ndarray:
  """Returns the matrix that scales, crops, then turns and mirrors the crop.

  `top` and `left` are of the scaled image; the crop is turned about its centre.

  Returns:
    float64 [2, 3]: maps (x, y, 1) of the crop to (x, y) of the image, pixel
    centres on whole numbers.
  """
  size = np.array(crop_size[::-1])
  angle = math.radians(degrees)
  sin, cos = math.sin(angle), math.cos(angle)
  linear = np.array([[cos, -sin], [sin, cos]]) / scale
  if flip:
    linear[:, 0] *= -1
  # Pixel i covers [i, i + 1) and has its centre at i + 0.5: what is scaled is
  # the distance from the edge of the image, not from the first centre.
  center = (np.array([left, top]) + size / 2) / scale - 0.5
  shift = center - linear @ ((size - 1) / 2)
  return np.concatenate([linear, shift[:, None]], axis=1)


def _check_pixels(crop_size: tuple[int, int]) -> None:
  if math.prod(crop_size) > images.MAX_PIXELS:
    raise ValueError(
        f"crop_size: expected at most {images.MAX_PIXELS // 1_000_000} "
        f"megapixels, got {crop_size}"
    )
