"""The images of a report, small enough to be part of its page."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import pictures
from ctxseg_jax.evaluation.tasks import TASKS

# Of the worst and of the best images each; with the sizes below, a page stays
# under about 5 MB.
NUM_EACH = 6
_LONGEST_SIDE = 720


def encode(
    kept: Mapping[int, tuple],
    report: Mapping[str, Any],
    spec: spec_lib.DatasetSpec,
) -> list[dict[str, Any]]:
  """Returns the worst and then the best images for `report.render`.

  Args:
    kept: Images with labels and predictions, as `evaluate.evaluate` returns
      them with `num_extremes=NUM_EACH` at least.
    report: The report that came with them.
    spec: The data set.
  """
  scores = report["images"][TASKS[spec.task].rank]
  scored = [i for i in kept if not np.isnan(scores[i])]
  ranked = sorted(scored, key=lambda i: (scores[i], i))
  worst = ranked[:NUM_EACH]
  best = ranked[len(worst) :][-NUM_EACH:][::-1]
  return [
      {"group": group, "index": i, **_encode_one(*kept[i], spec)}
      for group, indices in (("worst", worst), ("best", best))
      for i in indices
  ]


def _encode_one(image, label, prediction, name, spec):
  photo = Image.fromarray(image)
  factor = min(1.0, _LONGEST_SIDE / max(photo.size))
  size = tuple(max(1, round(n * factor)) for n in photo.size)
  photo = np.asarray(photo.resize(size, Image.Resampling.LANCZOS))
  shown = {
      "name": name,
      "size": size,
      "image": _uri("jpeg", images.encode_jpeg(photo)),
      "label": _classes(label, spec),
      "prediction": _classes(prediction, spec),
  }
  if label.ndim == 2:
    for layer, classes in (("label", label), ("prediction", prediction)):
      classes = Image.fromarray(np.asarray(classes, np.uint8))
      small = np.asarray(classes.resize(size, Image.Resampling.NEAREST))
      data = pictures.encode_palette_png(small, spec.palette)
      shown[f"{layer}_map"] = _uri("png", data)
  return shown


def _classes(labels, spec):
  """Returns the share of the pixels that every class has, by its number."""
  found, counts = np.unique(labels, return_counts=True)
  total = counts.sum()
  return {
      int(i): n / total
      for i, n in zip(found, counts, strict=True)
      if i < spec.num_classes
  }


def _uri(kind: str, data: bytes) -> str:
  return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
