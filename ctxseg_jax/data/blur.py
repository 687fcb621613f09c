"""Gaussian blur, as of several published recipes."""

import cv2
import numpy as np


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
  """Returns an image, uint8 [H, W, 3], blurred.

  Beyond its edges it is mirrored. `sigma` is the standard deviation of the
  Gaussian, in pixels; 0 changes nothing.
  """
  if sigma <= 0:
    return image
  return cv2.GaussianBlur(image, (0, 0), sigma)
