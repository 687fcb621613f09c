"""The confusion matrix and the scores that follow from it.

One integer matrix is summed over the whole split and divided once. What to do
with a class that does not occur differs between published codes; `PROTOCOLS`
names their rules.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# How a class enters the mean IoU.
#   "absent": its IoU if no pixel has it in labels or predictions;
#     None leaves the class out.
#   "unlabelled": its IoU if it is predicted but never labelled; None leaves
#     the class out.
PROTOCOLS = {
    "mmseg": {"absent": None, "unlabelled": 0.0},
    "emanet": {"absent": None, "unlabelled": 0.0},
    "pytorch_encoding": {"absent": 0.0, "unlabelled": 0.0},
    "semseg": {"absent": 0.0, "unlabelled": 0.0},
    "paddleseg": {"absent": 1.0, "unlabelled": 0.0},
    "detectron2": {"absent": None, "unlabelled": None},
    "torchvision": {"absent": float("nan"), "unlabelled": 0.0},
}


def confusion_matrix(
    labels: jax.Array,
    predictions: jax.Array,
    num_classes: int,
    ignore_label: int = 255,
) -> jax.Array:
  """Counts pixels by label and prediction.

  Args:
    labels: Integer classes of any shape.
    predictions: Integer classes of the same shape.
    num_classes: Number of classes C.
    ignore_label: Label of pixels that do not count.

  Returns:
    int32 [C, C]; rows are labels, columns predictions. Pixels whose label is
    ignored, or whose label or prediction is no class, are not counted: the
    caller compares the sum with the number of labelled pixels.
  """
  labels = jnp.asarray(labels).astype(jnp.int32).ravel()
  predictions = jnp.asarray(predictions).astype(jnp.int32).ravel()
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
    ValueError: Unknown protocol, or a matrix that is not square.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
        f"Unknown protocol {protocol!r}; known: {sorted(PROTOCOLS)}."
    )
  counts = np.asarray(confusion, np.int64)
  if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
    raise ValueError(f"Expected a square matrix, got shape {counts.shape}.")
  rule = PROTOCOLS[protocol]
  hits = np.diag(counts).astype(np.float64)
  labelled = counts.sum(axis=1).astype(np.float64)
  predicted = counts.sum(axis=0).astype(np.float64)
  union = labelled + predicted - hits
  total = labelled.sum()

  iou = _ratio(hits, union)
  entering = iou.copy()
  averaged = np.ones(len(counts), bool)
  for mask, value in (
      (union == 0, rule["absent"]),
      ((labelled == 0) & (union > 0), rule["unlabelled"]),
  ):
    if value is None:
      averaged &= ~mask
    else:
      entering = np.where(mask, value, entering)
  accuracy = _ratio(hits, labelled)
  present = labelled > 0
  share = labelled / total if total else labelled
  return {
      "miou": _mean(entering[averaged]),
      "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
      "mean_accuracy": _mean(accuracy[present]),
      "fwiou": float(np.sum(share[present] * iou[present])),
      "iou": iou,
      "accuracy": accuracy,
      "num_classes_averaged": int(averaged.sum()),
      "protocol": protocol,
  }


def accuracy_scores(confusion: np.ndarray) -> dict[str, Any]:
  """Computes how many images were classified rightly.

  Args:
    confusion: Counts [C, C] of images, rows are labels.

  Returns:
    `accuracy` and `error_rate` (fractions), and `class_accuracy`, float64 [C],
    nan where nothing has the label.
  """
  counts = np.asarray(confusion, np.int64)
  hits = np.diag(counts).astype(np.float64)
  labelled = counts.sum(axis=1).astype(np.float64)
  total = labelled.sum()
  accuracy = float(hits.sum() / total) if total else float("nan")
  return {
      "accuracy": accuracy,
      "error_rate": 1.0 - accuracy,
      "class_accuracy": _ratio(hits, labelled),
  }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values)) if values.size else float("nan")
