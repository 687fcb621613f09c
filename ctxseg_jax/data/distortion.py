"""Photometric distortion: brightness, contrast, saturation and hue.

As mmsegmentation's PhotoMetricDistortion, with its ranges: each of the four is
changed for half of the images, contrast before or after the colours. All are
tables of 256 values. Values are rounded down after every change, as there; but
where both saturation and hue change, it goes through RGB between them, and here
the image stays in HSV, which spares two roundings.
"""

from typing import NamedTuple

import cv2
import numpy as np

_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 18  # In OpenCV's units of 2 degrees.

_LEVELS = np.arange(256)


class Distortion(NamedTuple):
  """What is changed; the defaults change nothing.

  Attributes:
    brightness: Added to every channel.
    contrast: What channels are multiplied by.
    contrast_first: Whether contrast is changed before saturation and hue.
    saturation: What the saturation is multiplied by.
    hue: Added to the hue, in units of 2 degrees.
  """

  brightness: float = 0.0
  contrast: float = 1.0
  contrast_first: bool = True
  saturation: float = 1.0
  hue: int = 0


def draw(rng: np.random.Generator) -> Distortion:
  """Draws a distortion, by the same number of random numbers each time."""
  brightness, contrast, saturation, hue = rng.uniform(size=4) < 0.5
  first = rng.uniform() < 0.5
  values = (
      rng.uniform(-_BRIGHTNESS, _BRIGHTNESS),
      rng.uniform(*_CONTRAST),
      rng.uniform(*_SATURATION),
      int(np.floor(rng.uniform(-_HUE, _HUE))),
  )
  return Distortion(
      brightness=values[0] if brightness else 0.0,
      contrast=values[1] if contrast else 1.0,
      contrast_first=bool(first),
      saturation=values[2] if saturation else 1.0,
      hue=values[3] if hue else 0,
  )


def distort(image: np.ndarray, distortion: Distortion) -> np.ndarray:
  """Returns a distorted copy of an image, RGB, uint8 [H, W, 3]."""
  contrast = _table(distortion.contrast)
  before = _table(1.0, distortion.brightness)
  if distortion.contrast_first:
    before = contrast[before]
  image = cv2.LUT(image, before)
  if distortion.saturation != 1.0 or distortion.hue:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hue = ((_LEVELS + distortion.hue) % 180).astype(np.uint8)
    same = _table(1.0)
    tables = np.stack([hue, _table(distortion.saturation), same], axis=-1)
    hsv = cv2.LUT(hsv, tables[None])
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
  return image if distortion.contrast_first else cv2.LUT(image, contrast)


def _table(factor, offset=0.0):
  values = _LEVELS.astype(np.float32) * np.float32(factor) + np.float32(offset)
  return np.clip(values, 0, 255).astype(np.uint8)
