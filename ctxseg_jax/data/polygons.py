"""Masks of objects from COCO's polygons and run lengths.

Pixel for pixel what COCO's own tools (`maskApi.c` of cocoapi) make of them: the
boundary is drawn five times as fine, and a pixel is inside if an odd number of
its crossings lies above it in its column.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_FINE = 5.0
# Annotations leave the image by a little; far points would take memory.
_MAX_OUTSIDE = 10


def object_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
  """Returns the mask of an object, bool [height, width].

  Args:
    segmentation: As in COCO's files: polygons, each x and y in turn; or a dict
      with `counts`, lengths of runs down the columns, first of pixels outside.
    height: Of the image.
    width: Of the image.

  Raises:
    ValueError: It is neither.
  """
  if isinstance(segmentation, dict):
    counts = segmentation.get("counts")
    if not isinstance(counts, list):
      raise ValueError("run lengths that are no list of numbers")
    return _runs_mask(counts, height, width)
  if not isinstance(segmentation, list) or not segmentation:
    raise ValueError("neither polygons nor run lengths")
  mask = np.zeros((height, width), bool)
  for polygon in segmentation:
    mask |= polygon_mask(polygon, height, width)
  return mask


def polygon_mask(
    polygon: Sequence[float], height: int, width: int
) -> np.ndarray:
  """Returns the inside of a polygon, x and y of its corners in turn.

  Raises:
    ValueError: It is no polygon, or far outside.
  """
  corners = _numbers(polygon)
  if corners.size < 6 or corners.size % 2:
    raise ValueError(f"a polygon of {corners.size} numbers")
  if np.abs(corners).max() > _MAX_OUTSIDE * max(height, width):
    raise ValueError(f"a polygon that reaches {np.abs(corners).max():g}")
  # C truncates, towards zero also below it.
  fine = np.trunc(_FINE * corners.reshape(-1, 2) + 0.5).astype(np.int64)
  points = [
      _line(start, end)
      for start, end in zip(fine, np.roll(fine, -1, axis=0), strict=True)
  ]
  u, v = np.concatenate(points).T
  # Where the boundary goes on to another column, it crosses it.
  moves = u[1:] != u[:-1]
  left = np.minimum(u[1:], u[:-1])[moves]
  upper = np.minimum(v[1:], v[:-1])[moves]
  x = (left + 0.5) / _FINE - 0.5
  y = np.ceil(np.clip((upper + 0.5) / _FINE - 0.5, 0, height))
  inside = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
  starts = x[inside].astype(np.int64) * height + y[inside].astype(np.int64)
  mask = np.zeros(width * height, bool)
  if starts.size:
    # Counts above each pixel, column by column; every column has an even sum.
    first, last = starts.min(), min(starts.max(), mask.size)
    crossings = np.bincount(starts - first, minlength=last - first + 1)
    mask[first:last] = np.cumsum(crossings)[: last - first] % 2 == 1
  return mask.reshape(width, height).T


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
  """Returns the points of a line, [n, 2], in order."""
  steep = int(abs(end[1] - start[1]) > abs(end[0] - start[0]))
  if not steep and start[0] == end[0]:
    return start[None]
  # Drawn in ascending order, so that a line is the same in both directions.
  flip = start[steep] > end[steep]
  if flip:
    start, end = end, start
  along = np.arange(end[steep] - start[steep] + 1)
  slope = (end[1 - steep] - start[1 - steep]) / (end[steep] - start[steep])
  points = np.empty((len(along), 2), np.int64)
  points[:, steep] = start[steep] + along
  points[:, 1 - steep] = np.trunc(start[1 - steep] + slope * along + 0.5)
  return points[::-1] if flip else points


def _runs_mask(counts: list, height: int, width: int) -> np.ndarray:
  lengths = _numbers(counts)
  is_whole = (lengths >= 0).all() and not (lengths % 1).any()
  if not is_whole or lengths.sum() != height * width:
    raise ValueError(
        f"run lengths of {lengths.sum():g} pixels for an image of "
        f"{height * width}"
    )
  inside = np.arange(lengths.size) % 2 == 1
  return np.repeat(inside, lengths.astype(int)).reshape(width, height).T


def _numbers(values: Any) -> np.ndarray:
  """Returns a list as float64, or a ValueError if it holds anything else."""
  try:
    array = np.asarray(values, np.float64)
    if array.ndim == 1 and np.isfinite(array).all():
      return array
  except (TypeError, ValueError):
    pass
  raise ValueError("coordinates or lengths that are no numbers")
