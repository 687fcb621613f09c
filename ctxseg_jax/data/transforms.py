"""Random scale, rotation, flip and crop, as one affine warp for label maps.

Every pixel is sampled once instead of once per step, which is less blur and
less time. As in a bilinear resize nothing is filtered when it shrinks, so a
scale of 0.5 aliases slightly. What changes colours comes after the warp, and
leaves the padding as it is.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Annotated
from typing import Any
from typing import Literal

import cv2
import numpy as np

from ctxseg_jax import bounds
from ctxseg_jax import errors
from ctxseg_jax.data import blur
from ctxseg_jax.data import class_shares
from ctxseg_jax.data import distortion
from ctxseg_jax.data import images

_Side = Annotated[int, bounds.Bounds(1, 32_766)]  # OpenCV warps no larger one.
# Beyond these a crop is one pixel of the image, or all of it is one pixel.
_Scale = Annotated[float, bounds.Bounds(0.001, 1000)]
_Degrees = Annotated[float, bounds.Bounds(0, 180)]
_Padding = Annotated[int, bounds.Bounds(0, 1000)]
_Sigma = Annotated[float, bounds.Bounds(0, 100)]
_Share = Annotated[float, bounds.Bounds(0, 1, open_low=True)]

_NUM_RETRIES = 10  # mmsegmentation's.


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
    cat_max_ratio: Crops in which one class has at least so large a share of the
      labelled pixels are drawn again, up to 10 times; 1 takes every crop.
    blur_rate: Share of images that are blurred.
    blur_sigma: Smallest and largest standard deviation of the Gaussian that
      blurs, in pixels of the crop; uniform between them.
    photometric_distortion: Whether to change brightness, contrast, saturation
      and hue at random, as mmsegmentation does.
    warp: Who warps: the "host", or the "device" in the training step, which
      leaves the host nothing but to decode. Both draw the same numbers; images
      differ by rounding, a grey level at most, labels where two pixels are
      equally near. Blur and distortion need the host.
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
  cat_max_ratio: _Share = 1.0
  blur_rate: bounds.Fraction = 0.0
  blur_sigma: tuple[_Sigma, _Sigma] = (0.0, 1.0)
  photometric_distortion: bool = False
  warp: Literal["host", "device"] = "host"
  pad_color: tuple[float, float, float] = (127.5, 127.5, 127.5)
  ignore_label: int = 255

  def __post_init__(self):
    bounds.check_fields(self)
    _check_pixels(self.crop_size)
    for name in ("scale_range", "blur_sigma"):
      smallest, largest = given = getattr(self, name)
      if smallest > largest:
        raise ValueError(f"{name}: expected (smallest, largest), got {given}")
    if self.warp == "device" and (
        self.blur_rate or self.photometric_distortion
    ):
      raise ValueError(
          "warp: 'device' leaves no crop on the host for blur_rate and"
          " photometric_distortion; switch them off, or use 'host'"
      )

  def draw(
      self, rng: np.random.Generator, height: int, width: int
  ) -> np.ndarray:
    """Draws the `crop_matrix` for an image of a size."""
    return self._draw_placing(rng, height, width)(rng.uniform(size=2))

  def _draw_placing(
      self, rng: np.random.Generator, height: int, width: int
  ) -> Callable[[np.ndarray], np.ndarray]:
    """Draws all of the warp but the place of the crop.

    Returns what makes the `crop_matrix` of two random numbers.
    """
    scale = rng.uniform(*self.scale_range)
    scale *= fit_scale((height, width), self.short_side, self.long_side)
    degrees = rng.uniform(-1, 1) * self.rotation
    flip = rng.uniform() < 0.5 and self.flip
    # Whole pixels of the scaled image, so that a crop alone is not resampled.
    # A crop larger than the image puts the image anywhere inside it.
    room = np.rint(np.multiply((height, width), scale)) - self.crop_size

    def place(position):
      if self.center:
        position = np.full(2, 0.5)
      top, left = np.minimum(0, room) + np.floor(position * (np.abs(room) + 1))
      return crop_matrix(
          self.crop_size, top, left, scale=scale, degrees=degrees, flip=flip
      )

    return place

  def __call__(
      self, example: Mapping[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Returns a random crop of `"image"` uint8 [H, W, 3], `"label"` [H, W]."""
    size = example["label"].shape
    matrix, label, sigma, change = self._draw_all(example["label"], rng)
    if label is None:
      label = self._warp_label(example["label"], matrix)
    image = self._warp(
        example["image"], matrix, cv2.INTER_LINEAR, self.pad_color
    )
    if sigma is not None or self.photometric_distortion:
      if sigma is not None:
        image = blur.blur(image, sigma)
      if self.photometric_distortion:
        image = distortion.distort(image, change)
      image = self._fill_padding(image, matrix, size)
    return {"image": image, "label": label}

  def choose(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the matrix by which an example with a label would be warped."""
    return self._draw_all(label, rng)[0]

  def _draw_all(self, label, rng):
    """Draws a crop.

    All random numbers are drawn whatever the settings, so that switching one
    part off leaves the others as they were; those that are drawn again if a
    crop is refused come last.

    Returns the matrix, the crop of the label if it was looked at, the standard
    deviation of the blur if there is one, and the change of colours.
    """
    place = self._draw_placing(rng, *label.shape)
    matrix = place(rng.uniform(size=2))
    is_blurred = rng.uniform() < self.blur_rate
    sigma = rng.uniform(*self.blur_sigma)
    change = distortion.draw(rng)
    crop = None
    for _ in range(_NUM_RETRIES if self.cat_max_ratio < 1 else 0):
      crop = self._warp_label(label, matrix)
      if class_shares.is_mixed(crop, self.cat_max_ratio, self.ignore_label):
        break
      matrix, crop = place(rng.uniform(size=2)), None
    return matrix, crop, sigma if is_blurred else None, change

  def _warp_label(self, label, matrix):
    return self._warp(label, matrix, cv2.INTER_NEAREST, self.ignore_label)

  def _warp(self, image, matrix, rule, outside):
    return cv2.warpAffine(
        image,
        matrix,
        self.crop_size[::-1],
        flags=rule | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=outside,
    )

  def _fill_padding(self, image, matrix, size):
    """Returns a crop where what is outside the image has its colour again."""
    ends = [(0, n - 1) for n in self.crop_size[::-1]]
    corners = matrix @ np.transpose(
        [(x, y, 1) for x in ends[0] for y in ends[1]]
    )
    if np.all(corners.min(axis=1) >= 0) and np.all(
        corners.max(axis=1) <= np.subtract(size[::-1], 1)
    ):
      return image
    inside = np.ones(size, np.uint8)
    inside = self._warp(inside, matrix, cv2.INTER_NEAREST, 0)
    padding = np.empty_like(image)
    padding[:] = np.rint(self.pad_color)
    return cv2.copyTo(image, inside, padding)


@dataclasses.dataclass(frozen=True)
class Unwarped:
  """What the host does of an augmentation with `warp="device"`.

  Attributes:
    augmentation: What draws the warp.
    canvas: (H, W) that images are padded to at their right and bottom.
  """

  augmentation: Augmentation
  canvas: tuple[int, int]

  def __call__(
      self, example: Mapping[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Returns a padded example and how it is to be warped.

    `"image"` uint8 and `"label"` uint8 are of the canvas, `"size"` int32 [2] is
    (H, W) of the example in it, `"matrix"` float32 [2, 3] the `crop_matrix`.
    """
    label = example["label"]
    return {
        "image": self._pad(example["image"]),
        "label": self._pad(label),
        "size": np.array(label.shape, np.int32),
        "matrix": self.augmentation.choose(label, rng).astype(np.float32),
    }

  def _pad(self, array):
    if array.shape[:2] == self.canvas:
      return array
    padded = np.zeros((*self.canvas, *array.shape[2:]), np.uint8)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded


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
