"""An explanation as a picture."""

from collections.abc import Sequence
import math
import textwrap

import matplotlib
from matplotlib import figure
from matplotlib.backends import backend_agg
import numpy as np

from ctxseg_jax.evaluation import pictures
from ctxseg_jax.evaluation.explanation import Explanation
from ctxseg_jax.evaluation.palettes import distinct
from ctxseg_jax.evaluation.palettes import Palette

_COLUMNS = 4
_WIDTH, _IMAGE = 3.2, 2.5  # Inches of a panel, and of the image in it.
_LINE = 32  # Characters of a title.
_MAX_CLASSES = 24  # Bars that have room.
_OPACITY = 0.75  # Of maps over the image.
_COLORS = {"map": "inferno", "distance": "inferno_r", "signed": "RdBu_r"}


def draw(
    explanation: Explanation, class_names: Sequence[str], palette: Palette
) -> np.ndarray:
  """Draws what a context head sees, RGB, uint8 [H, W, 3].

  The first panels are the image with the chosen point and its prediction; all
  maps have the point, too.

  Args:
    explanation: What it sees.
    class_names: Names of the classes.
    palette: Their colours.
  """
  height, width = explanation.image.shape[:2]
  count = 2 + len(explanation.panels)
  rows = math.ceil(count / _COLUMNS)
  shape = min(max(height / width, 0.5), 2.0)
  fig = figure.Figure(
      figsize=(_COLUMNS * _WIDTH, rows * (_IMAGE * shape + 0.5) + 0.4),
      dpi=100,
      layout="constrained",
  )
  axes = fig.subplots(rows, _COLUMNS, squeeze=False).ravel()
  for ax in axes[count:]:
    ax.set_axis_off()
  x, y = explanation.point
  fig.suptitle(
      ", ".join([f"{explanation.head}, point {x},{y}", *explanation.notes]),
      fontsize=10,
  )
  palette = distinct(palette)
  _draw_image(axes[0], "image", explanation, explanation.image)
  _draw_prediction(axes[1], explanation, class_names, palette)
  gray = explanation.image.mean(axis=-1)
  for ax, panel in zip(axes[2:], explanation.panels, strict=False):
    if panel.kind == "classes":
      _draw_classes(ax, panel, explanation, class_names, palette)
    elif panel.kind == "bars":
      _draw_bars(ax, panel.labels, panel.values)
    else:
      ax.imshow(gray, cmap="gray", vmin=-128, vmax=383)
      _draw_map(fig, ax, panel, explanation)
    _title(ax, panel.title)
  canvas = backend_agg.FigureCanvasAgg(fig)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _title(ax, text):
  # As given: "$" starts a formula otherwise.
  text = textwrap.fill(text, _LINE)
  ax.set_title(text, fontsize=8, parse_math=False)


def _draw_image(ax, title, explanation, picture):
  ax.imshow(picture, interpolation="nearest")
  _mark(ax, explanation)
  _title(ax, title)


def _draw_prediction(ax, explanation, class_names, palette):
  labels = explanation.prediction
  height, width = labels.shape
  y, x = (
      min(int(p * n), n - 1)
      for p, n in zip(explanation.place, (height, width), strict=True)
  )
  title = f"prediction, at the point: {class_names[labels[y, x]]}"
  picture = pictures.overlay(explanation.image, labels, palette)
  _draw_image(ax, title, explanation, picture)


def _mark(ax, explanation):
  height, width = explanation.image.shape[:2]
  y, x = explanation.place
  at = (x * width - 0.5, y * height - 0.5)
  ax.plot(*at, "o", ms=9, mfc="none", mec="black", mew=3)
  ax.plot(*at, "o", ms=9, mfc="none", mec="cyan", mew=1.5)
  ax.set_xlim(-0.5, width - 0.5)
  ax.set_ylim(height - 0.5, -0.5)
  ax.set_axis_off()


def _draw_map(fig, ax, panel, explanation):
  height, width = explanation.image.shape[:2]
  place = dict(
      extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest"
  )
  if panel.kind == "colors":
    ax.imshow(panel.values, **place)
  elif panel.kind == "parts":
    number = len(panel.labels)
    colors = matplotlib.colormaps["tab20"](np.arange(number) % 20)
    ax.imshow(colors[panel.values], alpha=_OPACITY, **place)
    for color, label in zip(colors[:12], panel.labels, strict=False):
      ax.plot([], [], "s", color=color, label=label)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
  else:
    highest = float(np.abs(panel.values).max()) or 1.0
    low = -highest if panel.kind == "signed" else 0.0
    shown = ax.imshow(
        panel.values,
        cmap=_COLORS[panel.kind],
        vmin=low,
        vmax=highest,
        alpha=_OPACITY,
        **place,
    )
    bar = fig.colorbar(shown, cax=ax.inset_axes((1.03, 0.0, 0.05, 1.0)))
    bar.ax.tick_params(labelsize=7)
    bar.formatter.set_powerlimits((-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
  _mark(ax, explanation)


def _draw_classes(ax, panel, explanation, class_names, palette):
  """Bars of classes: those that are predicted first, filled and in bold."""
  pixels = explanation.prediction.ravel()
  counts = np.bincount(pixels, minlength=len(class_names))[: len(class_names)]
  order = np.lexsort((-panel.values, counts == 0))[:_MAX_CLASSES]
  names = [class_names[i] for i in order]
  for n, i in enumerate(order):
    if counts[i]:
      names[n] += f", {counts[i] / counts.sum():.1%}"
  bars = _draw_bars(ax, names, panel.values[order])
  for i, bar, text in zip(order, bars, ax.get_yticklabels(), strict=True):
    color = palette[i] / 255 if counts[i] else "white"
    bar.set(edgecolor="black", facecolor=color)
    text.set_fontweight("bold" if counts[i] else "normal")
  ax.set_xlabel("bold, with its share: in the prediction", fontsize=7)


def _draw_bars(ax, labels, values):
  places = range(len(values))
  bars = ax.barh(places, values, color="tab:gray", linewidth=0.5)
  ax.set_yticks(places, labels=labels, fontsize=7, parse_math=False)
  ax.invert_yaxis()
  ax.set_xlim(0, 1)
  ax.tick_params(axis="x", labelsize=7)
  return bars
