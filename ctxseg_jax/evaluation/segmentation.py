"""From images to class maps: whole images or windows, scales, flips.

Shapes are few and fixed. An image is padded at its right and bottom to a
*canvas* that other images share, and matrices per image map the logits of the
canvas to the pixels of the image, so that one compiled program serves every
image of a canvas, whatever its own size.
"""

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Annotated
from typing import Any
from typing import Literal

import cv2
import flax.linen as nn
import jax
import numpy as np

from ctxseg_jax import bounds
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import batching
from ctxseg_jax.models.resizing import resize_matrix

Scales = Annotated[
    tuple[Annotated[float, bounds.Bounds(0.01, 100)], ...], bounds.NotEmpty()
]
Size = tuple[bounds.PositiveInt, bounds.PositiveInt]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a class map is made.

  Attributes:
    mode: "whole" runs the network on the whole image, "slide" on windows.
    scales: Factors the image is resized by; the class probabilities of all
      are averaged.
    short_side: With `long_side`, the size that a scale of 1 stands for: the
      largest within both (`transforms.fit_scale`); without them, the image's
      own. Class maps come back at the image's own size.
    long_side: See `short_side`.
    flip: Whether to add the mirrored image of every scale.
    crop_size: (H, W) of the windows of "slide".
    stride: (H, W) between windows; None is two thirds of `crop_size`.
    max_canvases: The most padded shapes, hence compilations, per scale.
    batch_size_per_device: Images a device works on at once. Fixed per device
      and not per run, so that a prediction does not depend on the number of
      devices.
  """

  mode: Literal["whole", "slide"] = "whole"
  scales: Scales = (1.0,)
  short_side: bounds.PositiveInt | None = None
  long_side: bounds.PositiveInt | None = None
  flip: bool = False
  crop_size: Size | None = None
  stride: Size | None = None
  max_canvases: bounds.PositiveInt = 8
  batch_size_per_device: bounds.PositiveInt = 1

  def __post_init__(self):
    bounds.check_fields(self)
    if self.mode == "whole":
      return
    if self.crop_size is None:
      raise ValueError("mode 'slide' needs crop_size=(H, W)")
    if any(s > c for s, c in zip(self.steps, self.crop_size, strict=True)):
      raise ValueError(
          f"stride: {self.stride} leaves gaps between windows of"
          f" {self.crop_size}; expected at most their size"
      )

  @property
  def steps(self) -> tuple[int, int]:
    """(H, W) between windows."""
    return self.stride or _default_stride(self.crop_size)

  def describe(self) -> str:
    """Returns in a few words what belongs beside an mIoU."""
    text = self.mode
    if self.mode == "slide":
      text += " {}x{}".format(*self.crop_size)
      if self.steps != _default_stride(self.crop_size):
        text += " every {}x{}".format(*self.steps)
    for name in ("short_side", "long_side"):
      if getattr(self, name) is not None:
        text += f", {name.replace('_', ' ')} {getattr(self, name)}"
    text += ", scales " + ",".join(f"{s:g}" for s in self.scales)
    return text + (", flip" if self.flip else "")

  def scaled_size(self, size: Sequence[int], scale: float) -> tuple[int, int]:
    """Returns (H, W) of an image at one of the scales, rounded, at least 1."""
    scale *= transforms.fit_scale(size, self.short_side, self.long_side)
    return tuple(max(1, int(round(float(n) * scale))) for n in size)


def _default_stride(crop_size):
  return tuple(max(1, n * 2 // 3) for n in crop_size)


def plan_canvases(
    sizes: np.ndarray, max_canvases: int
) -> tuple[np.ndarray, int]:
  """Rounds image sizes up until few distinct ones are left.

  Returns the canvas of every image of `sizes`, [N, 2], and the multiple they
  were rounded up to: 1 (no padding at all) if there are few sizes already.
  """
  multiple = 1
  while True:
    canvases = -(-np.asarray(sizes) // multiple) * multiple
    if len(np.unique(canvases, axis=0)) <= max_canvases:
      return canvases, multiple
    multiple *= 2


def window_starts(length: int, crop: int, stride: int) -> list[int]:
  """Returns where windows start along one axis (mmsegmentation's rule).

  The last window is moved back to end with the image; an image shorter than
  the window has one.
  """
  count = max(length - crop + stride - 1, 0) // stride + 1
  return [max(min(i * stride, length - crop), 0) for i in range(count)]


class Predictor(batching.Predictor):
  """Predicts a class for every pixel.

  `align_corners` is the convention for resizing logits, the model's own.
  """

  def __init__(
      self,
      model: nn.Module,
      mesh: jax.sharding.Mesh,
      *,
      settings: Settings,
      align_corners: bool = False,
      **kwargs: Any,
  ):
    window = settings.crop_size if settings.mode == "slide" else None
    super().__init__(model, mesh, settings=settings, window=window, **kwargs)
    self._pad_color = np.rint(self.mean).astype(np.uint8)
    self._align_corners = align_corners
    flips = (False, True) if settings.flip else (False,)
    self._views = list(itertools.product(settings.scales, flips))
    # A single whole view at the image's own size needs neither resizing nor
    # averaging: the class map is the largest logit.
    own_size = settings.short_side is None and settings.long_side is None
    single = settings.mode == "whole" and self._views == [(1.0, False)]
    self._direct = self._gives_logits = own_size and single

  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Groups images [N, 2] by the canvases of themselves and every scale."""
    native, self.multiple = plan_canvases(sizes, self.settings.max_canvases)
    least = self.settings.crop_size if self.settings.mode == "slide" else (1, 1)
    groups = []
    for canvas in np.unique(native, axis=0):
      members = np.flatnonzero(np.all(native == canvas, axis=1))
      shapes = [tuple(canvas.tolist())]
      for scale in self.settings.scales:
        scaled = [self.settings.scaled_size(sizes[i], scale) for i in members]
        shapes.append(tuple(map(max, least, *scaled)))
      groups.append((tuple(shapes), members))
    return groups

  def _apply(self, variables, images, shapes, probabilities):
    """Scores the pixels of image i in its first rows and columns."""
    if self._direct:
      logits = self._run(variables, shapes, self._pad(images, shapes[0]))
      return jax.nn.softmax(logits, axis=-1) if probabilities else logits
    canvases = dict(zip(self.settings.scales, shapes[1:], strict=True))
    total = 0.0
    for scale, flip in self._views:
      view = self._view(images, shapes[0], canvases[scale], scale, flip)
      total += self._run(variables, (shapes[0], canvases[scale]), *view)
    return total / len(self._views)

  def _input_bytes(self, shapes):
    (height, width), *scaled = shapes
    if self._direct:
      return 3 * height * width
    # Pixels, and the matrices that lead back from them.
    return max(3 * h * w + 4 * (height * h + width * w) for h, w in scaled)

  def _pad(self, images, canvas):
    out = np.empty((len(images), *canvas, 3), np.uint8)
    out[:] = self._pad_color
    for padded, image in zip(out, images, strict=True):
      padded[: image.shape[0], : image.shape[1]] = image
    return out

  def _view(self, images, canvas, scaled_canvas, scale, flip):
    """Returns one scale and flip of a batch, and the way back."""
    back = [
        np.zeros((len(images), n, m), np.float32)
        for n, m in zip(canvas, scaled_canvas, strict=True)
    ]
    scaled_images = []
    for i, image in enumerate(images):
      size = image.shape[:2]
      target = self.settings.scaled_size(size, scale)
      if target != size:
        image = cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR)
      scaled_images.append(image[:, ::-1] if flip else image)
      for axis, (n, m) in enumerate(zip(size, target, strict=True)):
        matrix = resize_matrix(n, m, align_corners=self._align_corners)
        mirrored = flip and axis == 1
        back[axis][i, :n, :m] = matrix[:, ::-1] if mirrored else matrix
    windows = self._windows(scaled_images, scaled_canvas)
    return (self._pad(scaled_images, scaled_canvas), *back, *windows)

  def _windows(self, images, canvas):
    """Returns starts [B, n, 2] and weights [B, n] of the windows, or ()."""
    if self.settings.mode == "whole":
      return ()

    def positions(size):
      rows, columns = map(
          window_starts, size, self.settings.crop_size, self.settings.steps
      )
      return list(itertools.product(rows, columns))

    shape = (len(images), len(positions(canvas)))
    starts = np.zeros((*shape, 2), np.int32)
    weights = np.zeros(shape, np.float32)
    for i, image in enumerate(images):
      found = positions(image.shape[:2])
      starts[i, : len(found)] = found
      weights[i, : len(found)] = 1.0
    return starts, weights
