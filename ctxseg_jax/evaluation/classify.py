"""From images to one class each."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax.models.layers import normalize_images


@dataclasses.dataclass(frozen=True)
class Settings:
  """How images are classified.

  Attributes:
    batch_size_per_device: Images a device works on at once. Fixed per device
      and not per run, so that a prediction does not depend on the number of
      devices.
  """

  batch_size_per_device: int = 64

  def __post_init__(self):
    if self.batch_size_per_device < 1:
      raise ValueError("batch_size_per_device: expected at least 1")

  def describe(self) -> str:
    """Says in a few words what stands beside an accuracy."""
    return "one view of the whole image"


class Predictor:
  """Runs a network over batches of images; used as `inference.Predictor` is.

  Args:
    model: The network; its `"logits"` are [B, num_classes].
    mesh: Mesh with one axis, over which images are spread.
    mean: Mean of the images' channels, 0 to 255.
    std: Standard deviation of the images' channels.
    settings: How images are classified.
    image_size: (H, W) of training images. Others are resized to it.
  """

  def __init__(
      self,
      model: nn.Module,
      mesh: jax.sharding.Mesh,
      *,
      mean: Sequence[float],
      std: Sequence[float],
      settings: Settings,
      image_size: Sequence[int],
  ):
    self.model = model
    self.mesh = mesh
    self.settings = settings
    self.multiple = 1  # Nothing is padded.
    self._size = tuple(image_size)
    axis = mesh.axis_names[0]

    def softmax(variables, images):
      images = normalize_images(images, mean, std)
      logits = model.apply(variables, images, train=False)["logits"]
      return jax.nn.softmax(logits, axis=-1)

    self._softmax = jax.jit(
        jax.shard_map(
            softmax, mesh=mesh, in_specs=(P(), P(axis)), out_specs=P(axis)
        )
    )
    self._argmax = jax.jit(lambda x: jnp.argmax(x, axis=-1).astype(jnp.uint8))

  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Returns all images, of whatever size [N, 2], as one group."""
    return [((self._size,), np.arange(len(sizes)))]

  def predict(
      self,
      variables: Any,
      images: Sequence[np.ndarray],
      key: tuple,
      put: Callable[[np.ndarray], jax.Array],
      *,
      probabilities: bool = False,
  ) -> jax.Array:
    """Predicts the classes of images.

    Args:
      variables: Variables of the model, replicated.
      images: uint8 [h, w, 3] each; this process's share of the batch.
      key: Of their group in `plan`.
      put: Places a host array of the local share on the devices, sharded.
      probabilities: Whether to return class probabilities instead.

    Returns:
      uint8 [B], or float32 [B, C].
    """
    (size,) = key
    batch = np.stack([_resize(image, size) for image in images])
    out = self._softmax(variables, put(batch))
    return out if probabilities else self._argmax(out)

  def compilations(self) -> int:
    """Returns how many shapes the network was compiled for."""
    return self._softmax._cache_size()


def _resize(image, size):
  if image.shape[:2] == size:
    return image
  smaller = image.shape[0] > size[0] or image.shape[1] > size[1]
  # Averaging where it shrinks; it would repeat pixels where it grows.
  rule = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
  return cv2.resize(image, size[::-1], interpolation=rule)
