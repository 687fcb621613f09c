"""What tasks do differently, by the name that a `DatasetSpec` gives its own."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import classification
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation import pictures
from ctxseg_jax.evaluation import predictions
from ctxseg_jax.evaluation import procedure
from ctxseg_jax.evaluation import segmentation
from ctxseg_jax.evaluation import tables

Settings = procedure.Settings | classification.Settings


@dataclasses.dataclass(frozen=True)
class Task:
  """How examples are made, and results scored and shown.

  Attributes:
    augmentation: Class of what is done to training examples.
    settings: Class of how predictions are made.
    make_predictor: Of a model, a mesh, `mean`, `std`, `settings` and the
      `crop_size` of training images.
    protocols: The rules of scoring to choose from, the default first; none if
      there is only one.
    scores: Of a confusion matrix [C, C] and a protocol (None without a choice)
      to named figures.
    figures: The main figures, fractions, with their titles: those that are
      logged and drawn over the steps. The best checkpoint has the highest of
      the first.
    class_figure: The main figure of every class, a fraction.
    image_scores: Of counts by image (`metrics.image_scores`) to named figures.
    image_figures: These figures with their titles, first that which images are
      ranked by.
    table: Formats the figures of a report per class.
    picture: Draws an image, its label and its prediction, given the
      `DatasetSpec`.
    write: Writes predictions of a user's own images; see `predictions`.
  """

  augmentation: type[transforms.Augmentation | transforms.PaddedCrop]
  settings: type[Settings]
  make_predictor: Callable[..., batching.Predictor]
  protocols: tuple[str, ...]
  scores: Callable[[np.ndarray, str | None], dict[str, Any]]
  figures: Mapping[str, str]
  class_figure: str
  image_scores: Callable[..., dict[str, np.ndarray]]
  image_figures: Mapping[str, str]
  table: Callable[[Mapping[str, Any]], str]
  picture: Callable[..., np.ndarray]
  write: Callable[..., int]

  @property
  def score(self) -> str:
    """The figure that the best checkpoint has the highest of."""
    return next(iter(self.figures))

  @property
  def rank(self) -> str:
    """The figure that images are ranked by."""
    return next(iter(self.image_figures))


def figures(report: Mapping[str, Any]) -> dict[str, str]:
  """Returns the main figures of a report, by name, with their titles."""
  extra = metrics.EXTRA_FIGURES.items()
  extra = {name: title for name, title in extra if name in report}
  return {**TASKS[report["task"]].figures, **extra}


def _make_segmentation_predictor(model, mesh, *, crop_size, **kwargs):
  del crop_size  # Images keep their own sizes.
  align = model.align_corners
  return segmentation.Predictor(model, mesh, align_corners=align, **kwargs)


def _score_class(*counts):
  scores = metrics.image_scores(*counts)
  return {"margin": scores["confidence"] * (2.0 * scores["accuracy"] - 1.0)}


def _draw_maps(image, label, prediction, spec):
  names, palette = spec.class_names, spec.palette
  return pictures.comparison(image, label, prediction, names, palette)


def _draw_classes(image, label, prediction, spec):
  names = dict(enumerate(spec.class_names)) | {spec.ignore_label: "none"}
  lines = (
      f"label: {names[int(label)]}",
      f"prediction: {names[int(prediction)]}",
  )
  return pictures.captioned(image, *lines)


TASKS = {
    "classification": Task(
        augmentation=transforms.PaddedCrop,
        settings=classification.Settings,
        make_predictor=classification.Predictor,
        protocols=(),
        scores=lambda confusion, protocol: metrics.accuracy_scores(confusion),
        figures={"accuracy": "accuracy", "error_rate": "error rate"},
        class_figure="class_accuracy",
        image_scores=_score_class,
        image_figures={"margin": "confidence, negative where wrong"},
        table=tables.accuracy_table,
        picture=_draw_classes,
        write=predictions.write_classes,
    ),
    "segmentation": Task(
        augmentation=transforms.Augmentation,
        settings=procedure.Settings,
        make_predictor=_make_segmentation_predictor,
        protocols=tuple(metrics.PROTOCOLS),
        scores=metrics.scores,
        figures={
            "miou": "mIoU",
            "pixel_accuracy": "pixel accuracy",
            "fwiou": "fwIoU",
        },
        class_figure="iou",
        image_scores=metrics.image_scores,
        image_figures={
            "miou": "mIoU",
            "accuracy": "pixel accuracy",
            "confidence": "mean confidence",
        },
        table=tables.iou_table,
        picture=_draw_maps,
        write=predictions.write_maps,
    ),
}
