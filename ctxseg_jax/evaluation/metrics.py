"""The confusion matrix and the scores that follow from it.

One integer matrix is summed over the whole split and divided once. What to do
with a class that does not occur differs between published codes; `PROTOCOLS`
names their rules.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Protocol(NamedTuple):
  """What enters the mean IoU beside the classes that occur in the labels.

  Attributes:
    absent: The IoU of a class that no pixel has, in labels or predictions; None
      leaves the class out.
    unlabelled: That of one that is predicted but never labelled, likewise.
    num_zeros: Classes of IoU 0 that the network does not know.
  """

  absent: float | None
  unlabelled: float | None
  num_zeros: int = 0


PROTOCOLS = {
    "mmseg": Protocol(None, 0.0),
    "emanet": Protocol(None, 0.0),
    "pytorch_encoding": Protocol(0.0, 0.0),
    # How networks of 59 classes have figures for PASCAL-Context's 60.
    "background_as_zero": Protocol(0.0, 0.0, num_zeros=1),
    "semseg": Protocol(0.0, 0.0),
    "paddleseg": Protocol(1.0, 0.0),
    "detectron2": Protocol(None, None),
    "torchvision": Protocol(float("nan"), 0.0),
}

# What single data sets are compared by as well, with their titles; a
# `DatasetSpec` names its own.
EXTRA_FIGURES = {
    "final_score": "final score",
    "miou_with_background": "mIoU with background as 0",
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
    number of IoUs in the mean, and `protocol`.

  Raises:
    ValueError: Unknown protocol.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
        f"Unknown protocol {protocol!r}; known: {sorted(PROTOCOLS)}."
    )
  counts = np.asarray(confusion, np.int64)
  absent, unlabelled, num_zeros = PROTOCOLS[protocol]
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
  entering += [0.0] * num_zeros
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


def extra_figures(
    names: Iterable[str], found: Mapping[str, Any], confusion: np.ndarray
) -> dict[str, float]:
  """Computes figures that single data sets are compared by.

  Args:
    names: Keys of `EXTRA_FIGURES`: `final_score` is the mean of pixel accuracy
      and mean IoU, the score of ADE20K's challenge; `miou_with_background` is
      the mean IoU by the protocol `background_as_zero`.
    found: What `scores` returned.
    confusion: The counts that it was given.
  """
  compute = {
      "final_score": lambda: (found["pixel_accuracy"] + found["miou"]) / 2,
      "miou_with_background": lambda: scores(confusion, "background_as_zero")[
          "miou"
      ],
  }
  return {name: compute[name]() for name in names}


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


def image_scores(
    hits: np.ndarray,
    labelled: np.ndarray,
    predicted: np.ndarray,
    levels: np.ndarray,
) -> dict[str, np.ndarray]:
  """Computes the scores of single images.

  Args:
    hits: Pixels by image and class, [N, C], that were predicted rightly.
    labelled: Those that have the label.
    predicted: Those that have a label and were predicted to be of the class.
    levels: Wrong and right pixels by confidence, [N, 2, L]; see `calibration`.

  Returns:
    `miou`, the mean over the classes that the image's label has, `accuracy`
    and mean `confidence` of its pixels: fractions, [N], nan without a label.
  """
  iou = _ratio(hits, labelled + predicted - hits)
  present = labelled > 0
  total = np.sum(iou, axis=1, where=present)
  return {
      "miou": _ratio(total, present.sum(axis=1)),
      "accuracy": _ratio(hits.sum(axis=1), labelled.sum(axis=1)),
      "confidence": _ratio(
          levels.sum(axis=1) @ _middles(levels.shape[-1]),
          labelled.sum(axis=1),
      ),
  }


def calibration(counts: np.ndarray, num_bins: int = 16) -> dict[str, Any]:
  """Compares confidence with how often it was right.

  Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
  https://arxiv.org/abs/1706.04599, Eq. (1) to (3).

  Args:
    counts: Wrong and right predictions, [2, L], by the probability that the
      predicted class was given, in L equal levels from 0 to 1.
    num_bins: Bins of equal width, each of the same number of levels.

  Returns:
    `ece`, the expected calibration error; and by bin `predictions`,
    `confidence` (mean) and `accuracy`, fractions, nan in empty bins.
  """
  counts = np.asarray(counts, np.int64)
  middles = _middles(counts.shape[1])
  total = counts.sum(axis=0)

  def binned(values):
    return values.reshape(num_bins, -1).sum(axis=1)

  number = binned(total)
  confidence = _ratio(binned(total * middles), number)
  accuracy = _ratio(binned(counts[1]), number)
  gaps = np.abs(accuracy - confidence)
  return {
      "ece": float(_ratio(np.nansum(gaps * number), number.sum())),
      "predictions": number,
      "confidence": confidence,
      "accuracy": accuracy,
  }


def _middles(num_levels):
  return (np.arange(num_levels) + 0.5) / num_levels


def _ratio(part, whole):
  return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values):
  return float(np.mean(values)) if len(values) else float("nan")
