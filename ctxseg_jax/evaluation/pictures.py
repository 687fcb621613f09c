"""Pictures of images with their labels and predictions."""

from collections.abc import Sequence
import io
import math
import os
import pathlib

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from ctxseg_jax import files
from ctxseg_jax.data import images
from ctxseg_jax.evaluation.palettes import distinct
from ctxseg_jax.evaluation.palettes import Palette

_IGNORED = (48, 48, 48)
_IGNORED_STRIPE = (112, 112, 112)
_SMALL = 384  # Smaller images are enlarged to about this,
_LARGE = 1024  # and larger ones reduced to at most this.
_BACKGROUND = (255, 255, 255)
_TEXT = (32, 32, 32)
_OPACITY = 0.6  # Of classes over an image.
_STRIP = 256  # Rows that are blended at a time; a multiple of the hatching's 8.


def colorize(labels: np.ndarray, palette: Palette) -> np.ndarray:
  """Paints classes [H, W] as RGB, uint8 [H, W, 3].

  What is no class of the palette is hatched, to tell it from any class.
  """
  labels = np.asarray(labels)
  colors = np.asarray(palette, np.uint8)
  ignored = (labels < 0) | (labels >= len(colors))
  picture = colors[np.where(ignored, 0, labels)]
  picture[ignored] = _IGNORED
  rows, columns = np.nonzero(ignored)
  striped = (rows + columns) % 8 < 2
  picture[rows[striped], columns[striped]] = _IGNORED_STRIPE
  return picture


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    palette: Palette,
    opacity: float = 0.5,
) -> np.ndarray:
  """Returns an image, RGB uint8 [H, W, 3], below the colours of its labels.

  An opacity of 0 is the image alone.
  """
  if image.shape[:2] != labels.shape:
    raise ValueError(
        f"image {image.shape} and labels {labels.shape} differ in size."
    )
  picture = np.empty_like(image)
  for row in range(0, len(image), _STRIP):  # Floats of all take much memory.
    rows = slice(row, row + _STRIP)
    colors = colorize(labels[rows], palette).astype(np.float32)
    blended = (1.0 - opacity) * image[rows].astype(np.float32)
    picture[rows] = np.round(blended + opacity * colors)
  return picture


def labelled_overlay(
    image: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
    opacity: float = 0.5,
) -> np.ndarray:
  """Returns `overlay` in colours that differ, above a legend of its classes.

  It is as large as the image, but for the legend, which is at the bottom and
  may be wider.
  """
  palette = distinct(palette)
  height, width = labels.shape
  text = max(14, width // 60)
  present = np.unique(labels)
  legend = _legend(present, class_names, palette, width, text)
  canvas = np.full(
      (height + legend.height, legend.width, 3), _BACKGROUND, np.uint8
  )
  canvas[:height, :width] = overlay(image, labels, palette, opacity)
  canvas[height:] = np.asarray(legend)
  return canvas


def comparison(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
) -> np.ndarray:
  """Lays an image, its label and its prediction side by side, with a legend.

  The image is RGB, uint8 [H, W, 3], as is what is returned; label and
  prediction are classes, [H, W].
  """
  palette = distinct(palette)
  longest = max(image.shape[:2])
  stride = math.ceil(longest / _LARGE)
  # Whole pixels keep the borders of labels exact.
  factor = max(1, round(_SMALL / longest))
  if stride > 1:
    image = np.asarray(Image.fromarray(image).reduce(stride))
  image = _enlarge(image, factor)
  panels = [("image", image)]
  for title, labels in (("label", label), ("prediction", prediction)):
    labels = _enlarge(labels[::stride, ::stride], factor)
    panels.append((title, overlay(image, labels, palette, _OPACITY)))
  present = np.union1d(label, prediction)
  return _sheet(panels, 3, present, class_names, palette)


def grid(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    palette: Palette,
) -> np.ndarray:
  """Lays images and their labels side by side in rows, with one legend.

  A sample is a title, an image (RGB, uint8 [H, W, 3], as is what is returned)
  and a label ([H, W]), all of one size.
  """
  palette = distinct(palette)
  longest = max(samples[0][1].shape[:2])
  stride = math.ceil(longest / _SMALL)
  factor = max(1, _SMALL // (2 * longest))
  panels = []
  for title, image, label in samples:
    pair = (image, overlay(image, label, palette, _OPACITY))
    pair = [_enlarge(x[::stride, ::stride], factor) for x in pair]
    panels.append((title, np.hstack(pair)))
  present = np.unique([label for *_, label in samples])
  return _sheet(panels, 3, present, class_names, palette)


def _sheet(panels, columns, classes, class_names, palette):
  """Lays out titled panels of one size in rows, above a legend."""
  height, width = panels[0][1].shape[:2]
  text = max(14, width // 30)
  gap = text // 2
  font = ImageFont.load_default(size=text)
  columns = min(columns, len(panels))
  cell = (gap + text + gap + height, width + gap)
  top = math.ceil(len(panels) / columns) * cell[0]
  total = gap + columns * cell[1]
  legend = _legend(classes, class_names, palette, total, text)
  canvas = Image.new(
      "RGB", (max(total, legend.width), top + legend.height), _BACKGROUND
  )
  draw = ImageDraw.Draw(canvas)
  for i, (title, panel) in enumerate(panels):
    y, x = i // columns * cell[0] + gap, i % columns * cell[1] + gap
    while title and font.getlength(title) > width:
      title = title[1:]  # The ends of names tell more than their starts.
    draw.text((x, y + text), title, _TEXT, font, anchor="ls")
    canvas.paste(Image.fromarray(panel), (x, y + text + gap))
  canvas.paste(legend, (0, top))
  return np.asarray(canvas)


def captioned(image: np.ndarray, *lines: str) -> np.ndarray:
  """Puts lines of text below an image, RGB uint8, enlarged if it is small."""
  image = _enlarge(image, max(1, round(_SMALL / max(image.shape[:2]))))
  height, width = image.shape[:2]
  text = max(14, width // 18)
  font = ImageFont.load_default(size=text)
  gap = text // 2
  canvas = Image.new(
      "RGB", (width, height + gap + len(lines) * (text + gap)), _BACKGROUND
  )
  canvas.paste(Image.fromarray(image), (0, 0))
  draw = ImageDraw.Draw(canvas)
  for i, line in enumerate(lines):
    draw.text((gap, height + gap + i * (text + gap)), line, _TEXT, font)
  return np.asarray(canvas)


def save_png(path: str | os.PathLike[str], array: np.ndarray) -> None:
  """Writes uint8 [H, W, 3] as an RGB or [H, W] as a gray PNG."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  data = images.encode_png(np.ascontiguousarray(array, np.uint8))
  files.write_atomically(path, data)


def encode_palette_png(labels: np.ndarray, palette: Palette) -> bytes:
  """Encodes classes [H, W] as pixels that are shown in colour.

  Values beyond the palette are dark gray; a `ValueError` is raised for those
  that do not fit 8 bits.
  """
  labels = np.asarray(labels)
  if labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
    raise ValueError(f"labels up to {labels.max()} do not fit 8 bits.")
  colors = np.tile(np.array(_IGNORED, np.uint8), (256, 1))
  colors[: len(palette)] = np.asarray(palette, np.uint8)
  picture = Image.fromarray(np.ascontiguousarray(labels, np.uint8), "L")
  picture.putpalette(colors.tobytes())  # Makes it mode P.
  data = io.BytesIO()
  picture.save(data, "PNG")
  return data.getvalue()


def _enlarge(array: np.ndarray, factor: int) -> np.ndarray:
  return np.repeat(np.repeat(array, factor, axis=0), factor, axis=1)


def _legend(classes, class_names, palette, width, text):
  """Draws the names of classes beside their colours, in rows.

  The rows are so wide, or as wide as the longest name.
  """
  font = ImageFont.load_default(size=text)
  gap = text // 2
  known = [int(c) for c in classes if 0 <= c < len(class_names)]
  names = {c: class_names[c] for c in known}
  if len(known) < len(classes):
    names[-1] = "ignored"
  spaces = {
      label: text + gap // 2 + math.ceil(font.getlength(name)) + 2 * gap
      for label, name in names.items()
  }
  width = max(width, gap + max(spaces.values()))
  places = {}
  x, y = gap, gap
  for label, space in spaces.items():
    if x + space > width and x > gap:
      x, y = gap, y + text + gap
    places[label] = (x, y)
    x += space
  canvas = Image.new("RGB", (width, y + text + gap), _BACKGROUND)
  draw = ImageDraw.Draw(canvas)
  for label, (x, y) in places.items():
    swatch = colorize(np.full((text, text), label), palette)
    canvas.paste(Image.fromarray(swatch), (x, y))
    draw.rectangle((x, y, x + text - 1, y + text - 1), outline=_TEXT)
    at = (x + text + gap // 2, y + text // 2)
    draw.text(at, names[label], _TEXT, font, anchor="lm")
  return canvas
