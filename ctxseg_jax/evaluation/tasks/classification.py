"""One class for every image, scored by accuracy."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import classify
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation import predictions
from ctxseg_jax.evaluation import visualize
from ctxseg_jax.evaluation.tasks import task


def make_predictor(
    config: Mapping[str, Any],
    model: nn.Module,
    mesh: jax.sharding.Mesh,
    how: classify.Settings,
) -> classify.Predictor:
  """Returns a predictor of classes."""
  return classify.Predictor(
      model,
      mesh,
      mean=config["data"]["mean"],
      std=config["data"]["std"],
      settings=how,
      image_size=config["data"]["crop_size"],
  )


def scores(confusion: np.ndarray, protocol: None) -> dict[str, Any]:
  """Returns the accuracy scores; there is one rule for them."""
  del protocol
  return metrics.accuracy_scores(confusion)


def headline(report: Mapping[str, Any]) -> str:
  """Returns accuracy and error rate in percent."""
  return (
      f"accuracy {100 * report['accuracy']:.2f}, error rate"
      f" {100 * report['error_rate']:.2f}"
  )


def table(report: Mapping[str, Any]) -> str:
  """Returns the accuracy per class and what it is most taken for."""
  return visualize.accuracy_table(
      report["class_names"], np.array(report["confusion_matrix"])
  )


def picture(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    spec: spec_lib.DatasetSpec,
) -> np.ndarray:
  """Returns the image above the names of both classes, uint8 RGB."""
  return visualize.captioned(
      image,
      f"label: {spec.class_names[label]}",
      f"prediction: {spec.class_names[prediction]}",
  )


TASK = task.Task(
    augmentation=transforms.PaddedCrop,
    data_keys=("crop_size", "padding", "flip"),
    settings=classify.Settings,
    make_predictor=make_predictor,
    protocols=(),
    scores=scores,
    score="accuracy",
    score_title="accuracy, %",
    logged=("accuracy", "error_rate"),
    headline=headline,
    table=table,
    picture=picture,
    write=predictions.write_classes,
)
