"""The confusion matrix and the scores that follow from it.

One integer matrix is summed over the whole split and divided once. What to do
with a class that does not occur differs between published codes; `PROTOCOLS`
names their rules.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# What enters the mean as the IoU of a class that no pixel has, in labels or
# predictions, and of one that is predicted but never labelled; None leaves the
# class out.
PROTOCOLS = {
    "mmseg": (None, 0.0),
    "emanet": (None, 0.0),
    "pytorch_encoding": (0.0, 0.0),
    "semseg": (0.0, 0.0),
    "paddleseg": (1.0, 0.0),
    "detectron2": (None, None),
    "torchvision": (float("nan"), 0.0),
}


def confusion_matrix(
    labels: jax.Array,
    predictions: jax.Array,
    num_classes: int,
    ignore_label: int = 255,
) -> jax.Array:
  """Counts pixels by label and prediction, integers of any one shape.

  Returns int32 [C, C] for C classes; rows are labels, columns predictions. What
  is no class in either, such as `ignore_label`, is not counted: compare the sum
  with the number of labelled pixels.
  """
  labels = jnp.ravel(jnp.asarray(labels, jnp.int32))
  predictions = jnp.ravel(jnp.asarray(predictions, jnp.int32))
  valid = (labels != ignore_label) & (labels >= 0) & (labels < num_classes)
  valid &= (predictions >= 0) & (predictions < num_classes)
  # int32 throughout: float32 stops counting at 2 ** 24 pixels.
  cells = num_classes * num_classes
  index = jnp.where(valid, labels * num_classes + predictions, cells)
  counts = jnp.bincount(index, length=cells + 1)[:cells]
  return counts.astype(jnp.int32).reshape(num_classes, num_classes)


def scores(confusion: np.ndarray, protocol: str = "mmseg") -> dict[str, Any]:
  """Computes mean IoU and its companions from a confusion matrix.

  Args:
    confusion: Counts [C, C], rows are labels.
    protocol: A key of `PROTOCOLS`: how classes without pixels enter the mean.

  Returns:
    `miou`, `pixel_accuracy`, `mean_accuracy`, `fwiou` (fractions), `iou` and
    `accuracy` (float64 [C], nan where undefined), `num_classes_averaged`, the
    number of classes in the mean IoU, and `protocol`.

  Raises:
    ValueError: Unknown protocol.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
        f"Unknown protocol {protocol!r}; known: {sorted(PROTOCOLS)}."
    )
  counts = np.asarray(confusion, np.int64)
  absent, unlabelled = PROTOCOLS[protocol]
  hits = np.diag(counts).astype(np.float64)
  labelled = counts.sum(axis=1).astype(np.float64)
  union = labelled + counts.sum(axis=0) - hits
  iou = _ratio(hits, union)
  accuracy = _ratio(hits, labelled)
  entering = [
      absent if not u else unlabelled if not n else value
      for value, n, u in zip(iou, labelled, union, strict=True)
  ]
  entering = [value for value in entering if value is not None]
  present = labelled > 0
  share = _ratio(labelled, labelled.sum())
  return {
      "miou": _mean(entering),
      "pixel_accuracy": float(_ratio(hits.sum(), labelled.sum())),
      "mean_accuracy": _mean(accuracy[present]),
      "fwiou": float(np.sum(share[present] * iou[present])),
      "iou": iou,
      "accuracy": accuracy,
      "num_classes_averaged": len(entering),
      "protocol": protocol,
  }


def accuracy_scores(confusion: np.ndarray) -> dict[str, Any]:
  """Computes how many images were classified rightly.

  Returns, for counts [C, C] of images whose rows are labels, `accuracy` and
  `error_rate` (fractions), and `class_accuracy`, float64 [C], nan where nothing
  has the label.
  """
  counts = np.asarray(confusion, np.int64)
  hits = np.diag(counts).astype(np.float64)
  labelled = counts.sum(axis=1).astype(np.float64)
  accuracy = float(_ratio(hits.sum(), labelled.sum()))
  return {
      "accuracy": accuracy,
      "error_rate": 1.0 - accuracy,
      "class_accuracy": _ratio(hits, labelled),
  }


def _ratio(part, whole):
  return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values):
  return float(np.mean(values)) if len(values) else float("nan")
