"""Masks of objects from COCO's polygons and run lengths.

Polygons are drawn by COCO's own tools, the library pycocotools. What they do
not check, and would read or write memory by, is refused here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctxseg_jax import errors

try:
  from pycocotools import mask as coco_mask
except ImportError:
  coco_mask = None

# Annotations leave the image by a little; far points would take memory.
_MAX_OUTSIDE = 10


def require_library() -> None:
  """Raises a `UserError` where polygons cannot be drawn."""
  if coco_mask is None:
    raise errors.UserError(
        "pycocotools is not installed; expected it, to draw COCO's polygons. "
        "Run: pip install pycocotools (or install this package with [coco])."
    )


def object_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
  """Returns the mask of an object, bool [height, width].

  Args:
    segmentation: As in COCO's files: polygons, each x and y in turn; or a dict
      with `counts`, lengths of runs down the columns, first of pixels outside,
      as a list or as COCO's compressed text.
    height: Of the image.
    width: Of the image.

  Raises:
    ValueError: It is neither.
  """
  if isinstance(segmentation, dict):
    counts = segmentation.get("counts")
    if isinstance(counts, str):
      counts = _expand(counts)
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
  require_library()
  (runs,) = coco_mask.frPyObjects([corners.tolist()], height, width)
  return _runs_mask(_expand(runs["counts"].decode()), height, width)


def _expand(text: str) -> list[int]:
  """Returns the run lengths of COCO's compressed text.

  Each is a signed number of groups of five bits, the lowest first, with a bit
  for whether another follows; from the fourth on it is the difference to the
  one before the last.
  """
  counts, value, shift = [], 0, 0
  for character in text:
    group = ord(character) - 48
    if not 0 <= group < 64 or shift > 30:
      raise ValueError("run lengths that are no text of COCO")
    value |= (group & 31) << shift
    shift += 5
    if not group & 32:
      if group & 16:
        value -= 1 << shift
      counts.append(value + (counts[-2] if len(counts) > 2 else 0))
      value, shift = 0, 0
  return counts


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
