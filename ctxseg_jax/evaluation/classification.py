"""From images to one class each."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import cv2
import flax.linen as nn
import jax
import numpy as np

from ctxseg_jax import bounds
from ctxseg_jax import memory
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import forward


@dataclasses.dataclass(frozen=True)
class Settings:
  """How images are classified.

  Attributes:
    batch_size_per_device: Images a device works on at once. Fixed per device
      and not per run, so that a prediction does not depend on the number of
      devices.
  """

  batch_size_per_device: bounds.PositiveInt = 64

  def __post_init__(self):
    bounds.check_fields(self)

  def describe(self) -> str:
    """Returns in a few words what belongs beside an accuracy."""
    return "one view of the whole image"


class Predictor(batching.Predictor):
  """Predicts one class for each image.

  The `"logits"` of the model are [B, num_classes]. Images of another size than
  `crop_size`, (H, W) of training images, are resized to it.
  """

  def __init__(
      self,
      model: nn.Module,
      mesh: jax.sharding.Mesh,
      *,
      crop_size: Sequence[int],
      **kwargs: Any,
  ):
    super().__init__(model, mesh, **kwargs)
    self._size = tuple(crop_size)
    self._classes = jax.jit(
        forward.classes, static_argnums=1, out_shardings=self._sharded
    )

  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Returns all images, of whatever size [N, 2], as one group."""
    members = np.arange(len(sizes))
    return [((self._size,), members)] if len(members) else []

  def _fit(self, variables, shapes, sizes, probabilities):
    size = self._at_once(len(sizes))
    pixels = (*self._size, 3)
    advice = dict(
        what=batching.images_of(size, self._size),
        remedy="lower eval.batch_size_per_device",
    )
    memory.require(size * math.prod(pixels), **advice)
    images = self._abstract(size, *pixels, dtype=np.uint8)
    self._compile(self._network, variables, images, **advice)
    return size

  def _views(self, image):
    return _resize(image, self._size)

  def _apply(self, variables, sizes, views, shapes, probabilities):
    images = self.put(np.stack(views))
    logits = self._run(self._network, variables, images)
    if probabilities:
      return jax.nn.softmax(logits)
    return self._classes(logits, True)


def _resize(image, size):
  if image.shape[:2] == size:
    return image
  smaller = image.shape[0] > size[0] or image.shape[1] > size[1]
  # Averaging where it shrinks; it would repeat pixels where it grows.
  rule = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
  return cv2.resize(image, size[::-1], interpolation=rule)
