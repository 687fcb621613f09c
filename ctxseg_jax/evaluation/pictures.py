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

_IGNORED = (48, 48, 48)
_IGNORED_STRIPE = (112, 112, 112)
_SMALL = 384  # Smaller images are enlarged to about this,
_LARGE = 1024  # and larger ones reduced to at most this.
_BACKGROUND = (255, 255, 255)
_TEXT = (32, 32, 32)

Palette = Sequence[tuple[int, int, int]] | np.ndarray


def colorize(
    labels: np.ndarray, palette: Palette, stripes: bool = True
) -> np.ndarray:
  """Paints a label map.

  Args:
    labels: Classes, [H, W]; what is no class of the palette is ignored.
    palette: RGB colours by class.
    stripes: Whether ignored pixels are hatched, to tell them from any class;
      else plain dark gray.

  Returns:
    RGB, uint8 [H, W, 3].
  """
  labels = np.asarray(labels)
  colors = np.asarray(palette, np.uint8)
  ignored = (labels < 0) | (labels >= len(colors))
  picture = colors[np.where(ignored, 0, labels)]
  picture[ignored] = _IGNORED
  if stripes:
    rows, columns = np.indices(labels.shape)
    picture[ignored & ((rows + columns) % 8 < 2)] = _IGNORED_STRIPE
  return picture


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    palette: Palette,
    opacity: float = 0.5,
) -> np.ndarray:
  """Lays the colours of a label map over an image.

  Args:
    image: RGB, uint8 [H, W, 3].
    labels: Classes, [H, W].
    palette: RGB colours by class.
    opacity: Of the colours; 0 is the image alone.

  Returns:
    RGB, uint8 [H, W, 3].
  """
  if image.shape[:2] != labels.shape:
    raise ValueError(
        f"image {image.shape} and labels {labels.shape} differ in size."
    )
  colors = colorize(labels, palette).astype(np.float32)
  blended = (1.0 - opacity) * image.astype(np.float32) + opacity * colors
  return np.round(blended).astype(np.uint8)


def comparison(
    image: np.ndarray,
    label: np.ndarray | None,
    prediction: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
    opacity: float = 0.6,
) -> np.ndarray:
  """Puts an image, its label and its prediction side by side, with a legend.

  Args:
    image: RGB, uint8 [H, W, 3].
    label: Classes, [H, W]; None leaves the panel out.
    prediction: Classes, [H, W].
    class_names: Names by class.
    palette: RGB colours by class.
    opacity: Of the colours over the image.

  Returns:
    RGB, uint8.
  """
  longest = max(image.shape[:2])
  stride = math.ceil(longest / _LARGE)
  if stride > 1:
    image = np.asarray(Image.fromarray(image).reduce(stride))
    prediction = prediction[::stride, ::stride]
    label = None if label is None else label[::stride, ::stride]
  # Whole pixels keep the borders of labels exact.
  factor = max(1, round(_SMALL / longest))
  image = _enlarge(image, factor)
  prediction = _enlarge(prediction, factor)
  panels = [("image", image)]
  present = [prediction]
  if label is not None:
    label = _enlarge(label, factor)
    present.append(label)
    panels.append(("label", overlay(image, label, palette, opacity)))
  panels.append(("prediction", overlay(image, prediction, palette, opacity)))
  classes = np.unique(np.concatenate([x.ravel() for x in present]))

  height, width = image.shape[:2]
  text = max(14, width // 26)
  font = ImageFont.load_default(size=text)
  gap = max(6, text // 2)
  total = len(panels) * width + (len(panels) + 1) * gap

  legend = _legend(classes, class_names, palette, total, text)
  line = text + gap
  top = line + 2 * gap
  canvas = Image.new(
      "RGB", (total, top + height + gap + legend.height), _BACKGROUND
  )
  draw = ImageDraw.Draw(canvas)
  for i, (title, panel) in enumerate(panels):
    x = gap + i * (width + gap)
    draw.text((x, top - gap), title, _TEXT, font, anchor="ls")
    canvas.paste(Image.fromarray(panel), (x, top))
  canvas.paste(legend, (0, top + height + gap))
  return np.asarray(canvas)


def grid(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    palette: Palette,
    columns: int = 3,
    opacity: float = 0.6,
) -> np.ndarray:
  """Puts images and their labels side by side in rows, with one legend.

  Args:
    samples: Title, image (RGB, uint8 [H, W, 3]) and label ([H, W]) of each,
      all of one size.
    class_names: Names by class.
    palette: RGB colours by class.
    columns: Samples in a row.
    opacity: Of the colours over the image.

  Returns:
    RGB, uint8.
  """
  height, width = samples[0][1].shape[:2]
  stride = math.ceil(max(height, width) / _SMALL)
  factor = max(1, _SMALL // (2 * max(height, width)))
  height, width = (
      len(range(0, side, stride)) * factor for side in (height, width)
  )
  text = max(12, width // 20)
  font = ImageFont.load_default(size=text)
  gap = max(6, text // 2)
  columns = min(columns, len(samples))
  cell = (text + gap + height + gap, 2 * width + gap)
  total = gap + columns * cell[1]
  classes = np.unique(np.concatenate([label.ravel() for *_, label in samples]))
  legend = _legend(classes, class_names, palette, total, text)
  num_rows = math.ceil(len(samples) / columns)
  canvas = Image.new(
      "RGB", (total, num_rows * cell[0] + gap + legend.height), _BACKGROUND
  )
  draw = ImageDraw.Draw(canvas)
  for i, (title, image, label) in enumerate(samples):
    y, x = i // columns * cell[0], gap + i % columns * cell[1]
    while title and font.getlength(title) > 2 * width:
      title = title[1:]  # The ends of names tell more than their starts.
    draw.text((x, y + text + gap // 2), title, _TEXT, font, anchor="ls")
    panels = (image, overlay(image, label, palette, opacity))
    for j, panel in enumerate(panels):
      panel = _enlarge(panel[::stride, ::stride], factor)
      canvas.paste(Image.fromarray(panel), (x + j * width, y + text + gap))
  canvas.paste(legend, (0, num_rows * cell[0] + gap))
  return np.asarray(canvas)


def captioned(image: np.ndarray, *lines: str) -> np.ndarray:
  """Puts lines of text below an image, which is enlarged if it is small.

  Args:
    image: RGB, uint8 [H, W, 3].
    *lines: From above.

  Returns:
    RGB, uint8.
  """
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
  """Encodes a label map so that pixels are classes and are shown in colour.

  Args:
    labels: Classes, [H, W].
    palette: RGB colours by class; values beyond are shown dark gray.
  """
  labels = np.asarray(labels)
  if labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
    raise ValueError(
        f"labels of {labels.min()} to {labels.max()} do not fit 8 bits."
    )
  colors = np.tile(np.array(_IGNORED, np.uint8), (256, 1))
  colors[: len(palette)] = np.asarray(palette, np.uint8)
  picture = Image.fromarray(np.ascontiguousarray(labels, np.uint8), "L")
  picture.putpalette(colors.tobytes())  # Makes it mode P.
  data = io.BytesIO()
  picture.save(data, "PNG")
  return data.getvalue()


def _enlarge(array: np.ndarray, factor: int) -> np.ndarray:
  return np.repeat(np.repeat(array, factor, axis=0), factor, axis=1)


def _legend(
    classes: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
    width: int,
    text: int,
) -> Image.Image:
  """Draws the names of classes beside their colours, in rows of a width."""
  font = ImageFont.load_default(size=text)
  gap = max(6, text // 2)
  swatch = text
  entries = [
      (class_names[c], _swatch(c, palette, swatch))
      for c in classes
      if 0 <= c < len(class_names)
  ]
  if len(entries) < len(classes):
    entries.append(("ignored", _swatch(-1, palette, swatch)))
  rows = [[]]
  x = gap
  for name, square in entries:
    space = swatch + gap // 2 + math.ceil(font.getlength(name)) + 2 * gap
    if x + space > width and rows[-1]:
      rows.append([])
      x = gap
    rows[-1].append((x, name, square))
    x += space
  line = text + gap
  canvas = Image.new("RGB", (width, len(rows) * line), _BACKGROUND)
  draw = ImageDraw.Draw(canvas)
  for i, row in enumerate(rows):
    y = i * line
    for x, name, square in row:
      canvas.paste(Image.fromarray(square), (x, y))
      draw.rectangle((x, y, x + swatch - 1, y + swatch - 1), outline=_TEXT)
      draw.text(
          (x + swatch + gap // 2, y + swatch // 2),
          name,
          _TEXT,
          font,
          anchor="lm",
      )
  return canvas


def _swatch(label: int, palette: Palette, size: int) -> np.ndarray:
  return colorize(np.full((size, size), int(label)), palette)
