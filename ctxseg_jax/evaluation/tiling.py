"""Where tiles lie, and how the logits of one become the image's pixels.

A tile has a *core*, the pixels of the image that it answers for, and in each
view of the image, resized and perhaps mirrored, a *box*: what the network sees
for it, the core with a margin or with all windows that reach into it. What is
here is along one axis. A whole image is a single tile.

Boxes begin at multiples of `ALIGNMENT` and are shorter than the view by a
multiple of it. So the strides of a network fall where they would without
tiles, and an edge of the image is an edge of a box.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

from ctxseg_jax.models.resizing import resize_matrix

# A multiple of the strides of all networks.
ALIGNMENT = 32


class Place(NamedTuple):
  """Where the box of a core lies in a view.

  Attributes:
    start: Its first pixel.
    low: The first pixel of the view that the core is made from.
    high: The one after the last of them.
    back: The matrix from the logits of the box to the core, float32
      [core, coarse_box]; zeros for pixels beyond the image.
  """

  start: int
  low: int
  high: int
  back: np.ndarray


@dataclasses.dataclass(frozen=True)
class Axis:
  """One axis of the boxes of a view, for all images of a canvas.

  Attributes:
    length: Of the view, padded.
    box: Of the boxes.
    margin: Pixels that are seen beyond those of the core.
    crop: Of the windows; 0 without.
    stride: Between windows.
    overhang: Whether windows may end beyond the image.
    num_windows: The most windows of a box.
    coarse: Of the network's logits of the view.
    coarse_box: Of its logits of a box.
    align_corners: Its convention of resizing.
  """

  length: int
  box: int
  margin: int = 0
  crop: int = 0
  stride: int = 0
  overhang: bool = False
  num_windows: int = 0
  coarse: int = 0
  coarse_box: int = 0
  align_corners: bool = False

  def place(
      self, core: tuple[int, int], size: int, target: int, mirrored: bool
  ) -> Place:
    """Places the box of a core of an image.

    Args:
      core: Its first pixel, and the one after its last.
      size: Length of the image.
      target: Length of the image in the view, without padding.
      mirrored: Whether the view is mirrored.
    """
    return _place(self, core, size, target, mirrored)

  def windows(self, place: Place, target: int) -> list[int]:
    """Returns where in the box the windows start that reach into the core."""
    return [
        i - place.start for i in self._reaching(place.low, place.high, target)
    ]

  def start(self, low: int, high: int, target: int) -> int:
    """Returns where the box begins that shows pixels low to high."""
    if self.crop:
      start = self._reaching(low, high, target)[0]
    else:
      start = max(low - self.margin, 0) // ALIGNMENT * ALIGNMENT
    return min(start, self.length - self.box)

  def _reaching(self, low, high, target):
    starts = window_starts(target, self.crop, self.stride, self.overhang)
    return [i for i in starts if low - self.crop < i < high]


def cores(length: int, most: int) -> list[tuple[int, int]]:
  """Returns where cores of at most so many pixels start and end.

  All are of one size; the last is moved back to end with the image.
  """
  size = math.ceil(length / math.ceil(length / most))
  starts = [min(i, length - size) for i in range(0, length, size)]
  return [(start, start + size) for start in starts]


def window_starts(
    length: int, crop: int, stride: int, overhang: bool = False
) -> list[int]:
  """Returns where windows start along one axis.

  The last window is moved back to end with the image (mmsegmentation's rule),
  or else is left to `overhang` (PyTorch-Encoding's). An image shorter than the
  window has one.
  """
  count = max(length - crop + stride - 1, 0) // stride + 1
  last = math.inf if overhang else max(length - crop, 0)
  return [min(i * stride, last) for i in range(count)]


def make_axis(
    length: int,
    cores: Sequence[tuple[int, int]],
    resized: Iterable[tuple[int, int]],
    *,
    margin: int,
    windows: tuple[int, int] | None,
    overhang: bool = False,
) -> Axis:
  """Returns the boxes of cores on a view, without the sizes of logits.

  Args:
    length: Of the view, padded.
    cores: Where cores start and end.
    resized: The lengths that images have, and have in the view.
    margin: Pixels that are seen beyond those of a core.
    windows: Length of windows and stride between them, if there are any.
    overhang: Whether windows may end beyond the image.
  """
  core = cores[0][1] - cores[0][0]
  # From so many pixels of the view a core is made, at most.
  pixels = 1
  for size, target in resized:
    ratio = max(target / size, (target - 1) / max(size - 1, 1))
    needed = min(target, math.ceil((core - 1) * ratio) + 2)
    pixels = max(pixels, needed)
  if windows:
    crop, stride = windows
    most = (pixels + crop - 2) // stride + 2
    return Axis(
        length,
        min(length, pixels + 2 * crop - 2),
        crop=crop,
        stride=stride,
        overhang=overhang,
        num_windows=min(len(window_starts(length, crop, stride)), most),
    )
  spare = length - (pixels + 2 * margin + ALIGNMENT - 1)
  spare = max(0, spare // ALIGNMENT) if len(cores) > 1 else 0
  return Axis(length, length - spare * ALIGNMENT, margin)


@functools.lru_cache(maxsize=64)
def _place(axis, core, size, target, mirrored):
  start, stop = core[0], min(core[1], size)
  back = np.zeros((core[1] - core[0], axis.coarse_box), np.float32)
  if start >= stop:  # The image is smaller than others of its canvas.
    at = axis.start(0, 1, target)
    return Place(at, 0, 1, back)
  convention = dict(align_corners=axis.align_corners)
  if size == target:
    low, high, resized = start, stop, None
  else:
    resized = resize_matrix(size, target, rows=slice(start, stop), **convention)
    used = np.flatnonzero(resized.any(axis=0))
    low, high = int(used[0]), int(used[-1]) + 1
    resized = resized[:, low:high]
  if mirrored:
    low, high = target - high, target - low
  at = axis.start(low, high, target)
  if axis.coarse == axis.length:
    first = at
    fine = np.eye(axis.box, dtype=np.float32)[low - at : high - at]
  else:
    # The logits of the box are these of the view's.
    gap = axis.length - axis.box
    first = at * (axis.coarse - axis.coarse_box) // gap if gap else 0
    fine = resize_matrix(
        axis.length, axis.coarse, rows=slice(low, high), **convention
    )[:, first : first + axis.coarse_box]
  fine = fine[::-1] if mirrored else fine
  back[: stop - start] = fine if resized is None else resized @ fine
  return Place(at, low, high, back)


@dataclasses.dataclass(frozen=True)
class Tiles:
  """How the images of a group are cut.

  Attributes:
    cores: Where cores start and end, by axis.
    boxes: The axes of the boxes, by scale.
  """

  cores: tuple[list[tuple[int, int]], ...]
  boxes: dict[float, tuple[Axis, ...]]

  @property
  def size(self) -> tuple[int, ...]:
    """(H, W) of a core."""
    return tuple(stop - start for (start, stop), *_ in self.cores)

  @property
  def count(self) -> int:
    return math.prod(map(len, self.cores))

  @property
  def largest(self) -> tuple[int, ...]:
    """(H, W) of the largest box."""
    boxes = (tuple(axis.box for axis in axes) for axes in self.boxes.values())
    return max(boxes, key=math.prod)
