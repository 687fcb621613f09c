"""Colours of classes that people can tell apart over a photograph."""

from collections.abc import Sequence
import functools
import itertools

import cv2
import numpy as np

# Distances in CIE Lab, where 100 lies between black and white. Nearer colours
# are taken for black, or for each other.
_NEAR_BLACK = 15.0
_ALIKE = 10.0

_BLACK = np.zeros((1, 3), np.uint8)
_WHITE = _BLACK + 255

Palette = Sequence[tuple[int, int, int]] | np.ndarray


def distinct(palette: Palette) -> np.ndarray:
  """Returns a palette, uint8 [C, 3], in which people see which class is which.

  A colour that is near black gives way to white, where that is free, and one
  that is like an earlier class's to that which is farthest from all others.
  """
  colors = np.asarray(palette, np.uint8).reshape(-1, 3)
  return np.frombuffer(_distinct(colors.tobytes()), np.uint8).reshape(-1, 3)


@functools.lru_cache
def _distinct(data: bytes) -> bytes:
  colors = np.frombuffer(data, np.uint8).reshape(-1, 3).copy()
  levels = range(0, 256, 51)
  candidates = np.array(list(itertools.product(levels, repeat=3)), np.uint8)
  candidates = candidates[_distance(candidates, _BLACK) > 3 * _NEAR_BLACK]
  dark = _distance(colors, _BLACK) < _NEAR_BLACK
  taken = _BLACK
  replaced = []
  for i, color in enumerate(colors):
    if dark[i] or _distance([color], taken)[0] < _ALIKE:
      replaced.append(i)
    else:
      taken = np.vstack([taken, color])
  for i in replaced:
    apart = _distance(candidates, taken)
    if dark[i] and _distance(_WHITE, taken)[0] > 2 * _ALIKE:
      colors[i] = _WHITE
    elif dark[i] or apart.max() > _distance(colors[i : i + 1], taken)[0]:
      colors[i] = candidates[apart.argmax()]
    taken = np.vstack([taken, colors[i]])
  return colors.tobytes()


def _lab(colors):
  rgb = np.asarray(colors, np.float32).reshape(1, -1, 3) / 255
  return cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)[0]


def _distance(some, others):
  """Returns how far each of [N, 3] is from the nearest of [M, 3]."""
  gaps = _lab(some)[:, None] - _lab(others)[None]
  return np.linalg.norm(gaps, axis=-1).min(axis=1)
