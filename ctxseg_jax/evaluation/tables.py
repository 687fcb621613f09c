"""Tables of scores."""

from collections.abc import Mapping
import math
from typing import Any

import numpy as np

from ctxseg_jax import columns
from ctxseg_jax.evaluation import metrics


def percent(fraction: float | None) -> str:
  """Returns e.g. `39.50`, or `-` for what is not defined."""
  if fraction is None or not math.isfinite(fraction):
    return "-"
  return f"{100 * fraction:.2f}"


def iou_table(report: Mapping[str, Any]) -> str:
  """Formats the scores per class and over all classes.

  Args:
    report: `class_names`; `confusion_matrix`, counts [C, C] whose rows are
      labels; `miou`, `pixel_accuracy`, `mean_accuracy` and `fwiou`, fractions;
      `iou` and `accuracy`, by class; `num_classes_averaged`; and perhaps some
      of `metrics.EXTRA_FIGURES`. A score that is not defined is NaN or None.
  """
  names = report["class_names"]
  confusion = np.asarray(report["confusion_matrix"])
  labelled = confusion.sum(axis=1)
  predicted = confusion.sum(axis=0)
  rows = [("Class", "IoU", "Acc", "labelled pixels", "predicted pixels", "")]
  for i, name in enumerate(names):
    note = "" if predicted[i] else "never predicted"
    if not labelled[i]:
      note = "absent from labels" + ("" if predicted[i] else " and predictions")
    scores = (percent(report["iou"][i]), percent(report["accuracy"][i]))
    rows.append((name, *scores, f"{labelled[i]:,}", f"{predicted[i]:,}", note))
  lines = columns.align(rows, "<>>>><")
  lines.append(lines[1])
  pixels = f"of {labelled.sum():,} labelled pixels"
  number = report["num_classes_averaged"]  # More if some count as 0.
  averaged = f"over {number} of {max(number, len(names))} classes"
  present = f"over {np.count_nonzero(labelled)} labelled classes"
  extra = [x for x in metrics.EXTRA_FIGURES.items() if x[0] in report]
  width = max(len(x) for x in (*names, "pixel accuracy", *dict(extra).values()))
  for title, score, note in (
      ("mIoU", "miou", averaged),
      ("pixel accuracy", "pixel_accuracy", pixels),
      ("mean accuracy", "mean_accuracy", present),
      ("fwIoU", "fwiou", ""),
      *((title, score, "") for score, title in extra),
  ):
    line = f"{title:{width}}  {percent(report[score]):>6}  {note}"
    lines.append(line.rstrip())
  return "\n".join(lines)


def accuracy_table(report: Mapping[str, Any]) -> str:
  """Formats the accuracy per class and what the class is mistaken for.

  Args:
    report: `class_names` and `confusion_matrix`, counts [C, C] of images whose
      rows are labels.
  """
  names = report["class_names"]
  rows = [("Class", "Acc", "images", "most often taken for")]
  for i, counts in enumerate(np.asarray(report["confusion_matrix"])):
    total = counts.sum()
    accuracy = percent(counts[i] / total if total else None)
    wrong = np.where(np.arange(len(names)) == i, 0, counts)
    most = wrong.argmax()
    taken_for = f"{names[most]} ({wrong[most]})" if wrong[most] else ""
    rows.append((names[i], accuracy, f"{total:,}", taken_for))
  return "\n".join(columns.align(rows, "<>><"))
