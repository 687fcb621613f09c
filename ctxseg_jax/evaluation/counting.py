"""What is counted of every batch on the devices, and its sums on the host."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation.forward import CONFIDENCE_LEVELS


def make_count(
    mesh: jax.sharding.Mesh, num_classes: int, ignore_label: int
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Returns what counts a batch, as a `jax.jit` function over a mesh.

  It takes `outputs` and `confidences` of a `batching.Batch` and labels of the
  same shape, and returns int32 arrays that every process has: the confusion
  matrix [C, C], flat, and after it the number of all labelled pixels; and
  for each image, [B, 3 * C + 2 * CONFIDENCE_LEVELS], its pixels by class that
  are right, labelled and predicted, and the wrong and the right by confidence.
  """
  axis = mesh.axis_names[0]

  def count_image(predictions, confidences, labels):
    confusion = metrics.confusion_matrix(
        labels, predictions, num_classes, ignore_label
    )
    right = (predictions == labels).astype(jnp.int32)
    levels = confidences + CONFIDENCE_LEVELS * right
    levels = jnp.where(labels != ignore_label, levels, 2 * CONFIDENCE_LEVELS)
    by_level = jnp.bincount(levels.ravel(), length=2 * CONFIDENCE_LEVELS + 1)
    by_class = (jnp.diag(confusion), confusion.sum(1), confusion.sum(0))
    labelled = jnp.sum(labels != ignore_label)
    return (
        jnp.append(confusion, labelled),
        jnp.concatenate([*by_class, by_level[:-1]]).astype(jnp.int32),
    )

  def count(*batch):
    totals, images = jax.vmap(count_image)(*batch)
    return jax.lax.psum(totals.sum(axis=0), axis), images

  counted = jax.shard_map(
      count, mesh=mesh, in_specs=3 * (P(axis),), out_specs=(P(), P(axis))
  )
  return jax.jit(counted, out_shardings=NamedSharding(mesh, P()))


class Tally:
  """Sums of what was counted, of 64 bits, and the scores of every image.

  Attributes:
    totals: The confusion matrix, flat, and the number of labelled pixels.
    levels: Wrong and right predictions by confidence, [2, CONFIDENCE_LEVELS].
    scores: Figures by name, [N], as `image_scores` returns them.
  """

  def __init__(
      self,
      num_classes: int,
      num_images: int,
      image_scores: Callable[..., dict[str, np.ndarray]],
  ):
    self.totals = np.zeros(num_classes**2 + 1, np.int64)
    self.levels = np.zeros((2, CONFIDENCE_LEVELS), np.int64)
    self.scores = {}
    self._num_classes = num_classes
    self._num_images = num_images
    self._image_scores = image_scores

  def add(
      self, members: np.ndarray, totals: jax.Array, images: jax.Array
  ) -> None:
    """Adds a batch; waits until it was counted."""
    self.totals += np.asarray(totals)
    counts = np.asarray(images, np.int64)[: len(members)]
    by_class, levels = np.split(counts, [3 * self._num_classes], axis=1)
    levels = levels.reshape(-1, *self.levels.shape)
    self.levels += levels.sum(axis=0)
    by_class = by_class.reshape(-1, 3, self._num_classes).swapaxes(0, 1)
    for name, values in self._image_scores(*by_class, levels).items():
      column = self.scores.setdefault(name, np.full(self._num_images, np.nan))
      column[members] = values
