"""A confusion matrix as a picture."""

from collections.abc import Mapping
from typing import Any

from matplotlib import figure
from matplotlib.backends import backend_agg
import numpy as np

_MAX_NAMED = 40  # Classes whose names still have room beside the matrix.


def draw(report: Mapping[str, Any]) -> np.ndarray:
  """Draws the shares that labels have of predictions, RGB uint8 [H, W, 3].

  Args:
    report: `class_names` and `confusion_matrix`, counts [C, C] whose rows are
      labels.
  """
  names = report["class_names"]
  counts = np.asarray(report["confusion_matrix"])
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  inches = 4 + 0.2 * min(len(names), _MAX_NAMED)
  fig = figure.Figure(figsize=(inches, inches), dpi=100, layout="constrained")
  axes = fig.subplots()
  axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
  axes.set_xlabel("prediction")
  axes.set_ylabel("label")
  if len(names) <= _MAX_NAMED:
    # As given: "$" starts a formula otherwise.
    shown = dict(labels=names, parse_math=False)
    axes.set_xticks(range(len(names)), **shown, rotation=90)
    axes.set_yticks(range(len(names)), **shown)
  canvas = backend_agg.FigureCanvasAgg(fig)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()
