"""What a trained network says of a photograph, to be shown on a page."""

import html
import math
import os
import time

import numpy as np
from PIL import Image

from ctxseg_jax import experiment
from ctxseg_jax.data import images
from ctxseg_jax.evaluation import pictures
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.evaluation.palettes import distinct

_LONGEST_SIDE = 1600  # Of the picture that is shown, without its legend.
_MOST_PROGRAMS = 8  # Compiled ones that are kept, one for each size.


class Answers:
  """Answers photograph after photograph, in bounded memory."""

  def __init__(
      self, trained: experiment.Trained, settings: tasks.Settings | None = None
  ):
    """Takes a network, and how it predicts; None is as its config says."""
    self._trained = trained
    self._settings = settings
    self._predictor = trained.predictor(settings)

  def answer(self, path: str | os.PathLike[str]) -> tuple[np.ndarray, str]:
    """Returns a picture, uint8 [H, W, 3], and a table in HTML.

    The picture is the photograph below its classes, with a legend; the table
    has the share of the pixels that each class has. Of a network that
    classifies images they are the photograph, and the probabilities.

    Raises:
      UserError: The file is no image, or there is not enough memory.
    """
    image = images.decode_image(path, os.path.basename(path))
    spec = self._trained.spec
    is_of_maps = spec.task == "segmentation"
    if self._predictor.compilations() >= _MOST_PROGRAMS:
      self._predictor = self._trained.predictor(self._settings)
    start = time.monotonic()
    (result,) = self._predictor.predict(
        self._trained.variables, [image], probabilities=not is_of_maps
    )
    seconds = time.monotonic() - start
    stride = math.ceil(max(image.shape[:2]) / _LONGEST_SIDE)
    picture = np.asarray(Image.fromarray(image).reduce(stride))
    shares, colors = result, None
    if is_of_maps:
      counts = np.bincount(result.ravel(), minlength=spec.num_classes)
      shares, colors = counts / result.size, distinct(spec.palette)
      picture = pictures.labelled_overlay(
          picture, result[::stride, ::stride], spec.class_names, spec.palette
      )
    height, width = image.shape[:2]
    note = f"{width}x{height} pixels, {seconds:.1f} s"
    return picture, _table(spec.class_names, shares, colors, note)


def _table(names, shares, colors, note) -> str:
  rows = []
  for i in np.argsort(-np.asarray(shares), kind="stable"):
    percent = f"{100 * shares[i]:.1f} %"
    if percent == "0.0 %":
      break
    swatch = ""
    if colors is not None:
      red, green, blue = colors[i]
      swatch = (
          '<span style="display:inline-block;width:1em;height:1em;'
          f'background:rgb({red},{green},{blue})"></span> '
      )
    rows.append(
        f"<tr><td>{swatch}{html.escape(names[i])}</td><td>{percent}</td></tr>"
    )
  return f'<table>{"".join(rows)}</table><p>{note}</p>'
