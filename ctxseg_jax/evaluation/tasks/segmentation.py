"""A class for every pixel, scored by mean IoU."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import inference
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation import predictions
from ctxseg_jax.evaluation import visualize
from ctxseg_jax.evaluation.tasks import task


def make_predictor(
    config: Mapping[str, Any],
    model: nn.Module,
    mesh: jax.sharding.Mesh,
    how: inference.Settings,
) -> inference.Predictor:
  """Returns a predictor of class maps."""
  return inference.Predictor(
      model,
      mesh,
      mean=config["data"]["mean"],
      std=config["data"]["std"],
      settings=how,
      align_corners=model.align_corners,
  )


def headline(report: Mapping[str, Any]) -> str:
  """Returns mIoU and pixel accuracy in percent."""
  return (
      f"mIoU {100 * report['miou']:.2f}, pixel accuracy"
      f" {100 * report['pixel_accuracy']:.2f}"
  )


def table(report: Mapping[str, Any]) -> str:
  """Returns IoU and accuracy per class."""
  return visualize.iou_table(
      report["class_names"], report, np.array(report["confusion_matrix"])
  )


def picture(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    spec: spec_lib.DatasetSpec,
) -> np.ndarray:
  """Returns image, label and prediction side by side, uint8 RGB."""
  return visualize.comparison(
      image,
      label,
      prediction,
      spec.class_names,
      np.array(spec.palette, np.uint8),
  )


TASK = task.Task(
    augmentation=transforms.Augmentation,
    data_keys=(
        "crop_size",
        "scale_range",
        "rotation",
        "flip",
        "short_side",
        "long_side",
    ),
    settings=inference.Settings,
    make_predictor=make_predictor,
    protocols=tuple(metrics.PROTOCOLS),
    scores=metrics.scores,
    score="miou",
    score_title="mIoU, %",
    logged=("miou", "pixel_accuracy"),
    headline=headline,
    table=table,
    picture=picture,
    write=predictions.write_maps,
)
