"""Pictures of labels and of training, and the table of scores."""

from collections.abc import Mapping
from collections.abc import Sequence
import math
import os
import pathlib
from typing import Any

from matplotlib import figure
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

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
  Image.fromarray(np.ascontiguousarray(array, np.uint8)).save(path, "PNG")


def save_palette_png(
    path: str | os.PathLike[str], labels: np.ndarray, palette: Palette
) -> None:
  """Writes a label map as a palette PNG: pixels are classes, shown in colour.

  Args:
    path: The file.
    labels: Classes, uint8 [H, W].
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
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  picture.save(path, "PNG")


def plot_curves(
    metrics: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    references: Mapping[str, float] | None = None,
    *,
    score: str = "miou",
    title: str = "mIoU, %",
) -> None:
  """Draws loss, learning rate and a score over the steps.

  Args:
    metrics: Rows of `metrics.jsonl`: `"step"`, `"learning_rate"` and the loss
      terms `"loss/..."`; other entries and null are left out.
    evaluations: `"step"` and the score (a fraction) each.
    path: The PNG to write.
    references: Known scores (fractions) by name, drawn as dashed lines.
    score: Name of the score.
    title: What to call it.
  """
  fig = figure.Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
  grid = fig.add_gridspec(2, 2, height_ratios=(3, 1))
  loss_axes = fig.add_subplot(grid[0, 0])
  rate_axes = fig.add_subplot(grid[1, 0], sharex=loss_axes)
  score_axes = fig.add_subplot(grid[:, 1])

  names = {name for row in metrics for name in row if name.startswith("loss/")}
  # The total first and in black; alone it is the only term there is.
  for name in sorted(names, key=lambda n: (n != "loss/total", n)):
    total = name == "loss/total"
    steps, values = _series(metrics, name)
    loss_axes.plot(
        steps,
        values,
        label=name.removeprefix("loss/"),
        # A line needs two points to be seen.
        marker="." if len(steps) < 2 else None,
        color="black" if total else None,
        linewidth=1.6 if total else 1.1,
        zorder=3 if total else 2,
    )
  loss_axes.set_title("training loss", loc="left")
  loss_axes.set_ylim(bottom=0.0)
  loss_axes.tick_params(labelbottom=False)
  if names:
    loss_axes.legend(frameon=False)

  steps, values = _series(metrics, "learning_rate")
  rate_axes.plot(steps, values, color="tab:gray")
  rate_axes.set_title("learning rate", loc="left")
  rate_axes.set_ylim(bottom=0.0)
  rate_axes.set_xlabel("step")

  steps, values = _series(evaluations, score)
  values = [100 * value for value in values]
  score_axes.plot(steps, values, marker="o", markersize=4, color="tab:blue")
  if values:
    best = max(range(len(values)), key=values.__getitem__)
    score_axes.annotate(
        f"{values[best]:.2f}",
        (steps[best], values[best]),
        textcoords="offset points",
        xytext=(0, 7),
        ha="center",
        color="tab:blue",
        fontweight="bold",
    )
  for i, (name, value) in enumerate((references or {}).items()):
    score_axes.axhline(
        100 * value,
        label=f"{name} {100 * value:.2f}",
        color=f"C{1 + i % 9}",
        linestyle="--",
        linewidth=1.2,
    )
  if references:
    # Where a rising curve leaves room.
    # On white: reference lines may run behind it.
    score_axes.legend(edgecolor="none", framealpha=0.9, loc="lower right")
  heights = values + [100 * v for v in (references or {}).values()]
  score_axes.set_ylim(0.0, min(105.0, 1.15 * max(heights, default=100.0) + 1.0))
  score_axes.set_title(title, loc="left")
  score_axes.set_xlabel("step")

  last = max((row["step"] for row in (*metrics, *evaluations)), default=1)
  for axes in (loss_axes, rate_axes, score_axes):
    axes.set_xlim(0, 1.03 * max(last, 1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  fig.savefig(path, format="png")


def iou_table(
    class_names: Sequence[str],
    scores: Mapping[str, Any],
    confusion: np.ndarray,
) -> str:
  """Formats the scores per class and over all classes as plain text.

  Args:
    class_names: Names by class.
    scores: `miou`, `pixel_accuracy`, `mean_accuracy` and `fwiou` (fractions),
      `iou` and `accuracy` (by class; NaN or None where undefined) and
      `num_classes_averaged`.
    confusion: Counts [C, C]; rows are labels, columns predictions.

  Returns:
    Lines without a line break at the end.
  """
  confusion = np.asarray(confusion)
  labelled = confusion.sum(axis=1)
  predicted = confusion.sum(axis=0)
  rows = [("Class", "IoU", "Acc", "labelled pixels", "predicted pixels", "")]
  for i, name in enumerate(class_names):
    if not labelled[i] and not predicted[i]:
      note = "absent from labels and predictions"
    elif not labelled[i]:
      note = "absent from labels"
    elif not predicted[i]:
      note = "never predicted"
    else:
      note = ""
    rows.append(
        (
            name,
            _percent(scores["iou"][i]),
            _percent(scores["accuracy"][i]),
            f"{int(labelled[i]):,}",
            f"{int(predicted[i]):,}",
            note,
        )
    )
  widths = [max(len(row[i]) for row in rows) for i in range(5)]
  lines = []
  for row in rows:
    cells = [row[0].ljust(widths[0])]
    cells += [row[i].rjust(widths[i]) for i in range(1, 5)]
    lines.append("  ".join([*cells, row[5]]).rstrip())
  rule = "-" * (sum(widths) + 8)
  lines.insert(1, rule)
  lines.append(rule)
  averaged = scores["num_classes_averaged"]
  summary = (
      (
          "mIoU",
          scores["miou"],
          f"over {averaged} of {len(class_names)} classes",
      ),
      (
          "pixel accuracy",
          scores["pixel_accuracy"],
          f"of {int(labelled.sum()):,} labelled pixels",
      ),
      (
          "mean accuracy",
          scores["mean_accuracy"],
          f"over {np.count_nonzero(labelled)} labelled classes",
      ),
      ("fwIoU", scores["fwiou"], ""),
  )
  width = max(widths[0], *(len(name) for name, _, _ in summary))
  for name, value, note in summary:
    lines.append(
        f"{name.ljust(width)}  {_percent(value).rjust(6)}  {note}".rstrip()
    )
  return "\n".join(lines)


def accuracy_table(class_names: Sequence[str], confusion: np.ndarray) -> str:
  """Formats the accuracy per class as plain text.

  Args:
    class_names: Names by class.
    confusion: Counts [C, C] of images; rows are labels, columns predictions.

  Returns:
    Lines without a line break at the end.
  """
  confusion = np.asarray(confusion)
  rows = [("Class", "Acc", "images", "most often taken for")]
  for i, name in enumerate(class_names):
    total = int(confusion[i].sum())
    wrong = np.where(np.arange(len(class_names)) == i, 0, confusion[i])
    most = int(wrong.argmax())
    rows.append(
        (
            name,
            _percent(confusion[i, i] / total if total else None),
            f"{total:,}",
            f"{class_names[most]} ({wrong[most]})" if wrong[most] else "",
        )
    )
  widths = [max(len(row[i]) for row in rows) for i in range(3)]
  lines = [
      "  ".join(
          (
              row[0].ljust(widths[0]),
              row[1].rjust(widths[1]),
              row[2].rjust(widths[2]),
              row[3],
          )
      ).rstrip()
      for row in rows
  ]
  lines.insert(1, "-" * (sum(widths) + 4))
  return "\n".join(lines)


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


def _series(
    rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[list[int], list[float]]:
  found = [
      (row["step"], row[name])
      for row in rows
      if row.get(name) is not None and math.isfinite(row[name])
  ]
  return [step for step, _ in found], [value for _, value in found]


def _percent(fraction: float | None) -> str:
  if fraction is None or not math.isfinite(fraction):
    return "-"
  return f"{100 * fraction:.2f}"
