"""Writes what a network makes of a user's own images."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import csv
import io
import os
import pathlib
from typing import Any

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import progress
from ctxseg_jax.data import images as images_lib
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import outputs
from ctxseg_jax.evaluation import pictures

_SUFFIXES = (".jpeg", ".jpg", ".png")


def list_images(path: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the images that a path stands for, sorted by name.

  Args:
    path: An image, a folder, or a `.txt` file with one image per line, taken
      from the folder of the list if it is not absolute.

  Raises:
    UserError: There is nothing there, or a listed file is missing.
  """
  found = files.local_path(path, "--images")
  shown = files.printable(found)
  if not os.path.lexists(found):
    raise errors.UserError(f"--images: {shown}: there is nothing")
  if found.is_dir():
    try:
      paths = sorted(
          p for p in found.iterdir() if p.suffix.lower() in _SUFFIXES
      )
    except OSError as e:
      raise errors.UserError(
          f"--images: {shown}: cannot be read ({e.strerror}); mend its"
          " permissions"
      ) from e
    if not paths:
      raise errors.UserError(
          f"--images: no {', '.join(_SUFFIXES)} files in {shown}"
      )
    return paths
  if found.suffix.lower() != ".txt":
    return [found]
  paths = []
  lines = files.read_text(found, what="a list of images").splitlines()
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    listed = found.parent / line.strip()
    if not listed.is_file():
      raise errors.UserError(
          f"{shown}, line {number}: no file {files.printable(listed)}"
      )
    paths.append(listed)
  if not paths:
    raise errors.UserError(f"--images: the list {shown} is empty")
  return paths


def write_maps(
    predictor: batching.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    output: str | os.PathLike[str],
    spec: spec_lib.DatasetSpec,
    *,
    opacity: float | None = None,
    probabilities: bool = False,
    submission: bool = False,
) -> int:
  """Predicts images and writes `<stem>.png` and `<stem>_overlay.png`.

  Args:
    predictor: Makes class maps.
    variables: Variables of the model.
    paths: Image files.
    output: Folder to write to; made if it is not there.
    spec: The data set's `DatasetSpec`: its palette.
    opacity: Of the classes in the overlay; None is one half.
    probabilities: Whether to write `<stem>.npy`, float16 [H, W, C], too.
    submission: Whether to write `submission/<stem>.png`, gray, with the ids of
      the data set's server, too.

  Returns:
    The number of images.

  Raises:
    UserError: An image cannot be read, a file is in the way (see
      `outputs.OutputFolder`), or there is no server.
  """
  if submission and not spec.submission_ids:
    raise errors.UserError(
        f"--submission: {spec.name} has no server that takes predictions; leave"
        " it out"
    )
  opacity = 0.5 if opacity is None else opacity
  if not 0 <= opacity <= 1:
    raise errors.UserError(f"--opacity: expected 0 to 1, got {opacity}")
  names = ["{}.png", "{}_overlay.png"]
  names += ["{}.npy"] if probabilities else []
  names += ["submission/{}.png"] if submission else []
  sizes = _read_sizes(paths)
  folder = outputs.OutputFolder(
      output, [(name.format(p.stem), p) for p in paths for name in names]
  )
  ids = np.array(spec.submission_ids, np.uint8)
  for path, image, values in _predict(
      predictor, variables, paths, sizes, probabilities
  ):
    encoded = {}
    if probabilities:
      array = io.BytesIO()
      np.save(array, values.astype(np.float16))
      encoded["{}.npy"] = array.getvalue()
      values = values.argmax(axis=-1)
    labels = values.astype(np.uint8)
    encoded["{}.png"] = pictures.encode_palette_png(labels, spec.palette)
    encoded["{}_overlay.png"] = images_lib.encode_png(
        pictures.overlay(image, labels, spec.palette, opacity)
    )
    if submission:
      encoded["submission/{}.png"] = images_lib.encode_png(ids[labels])
    for name, data in encoded.items():
      folder.write(name.format(path.stem), data)
  return len(paths)


def write_classes(
    predictor: batching.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    output: str | os.PathLike[str],
    spec: spec_lib.DatasetSpec,
    *,
    opacity: float | None = None,
    probabilities: bool = False,
    submission: bool = False,
) -> int:
  """Predicts images and writes `predictions.csv`, one line for each.

  Arguments and errors are those of `write_maps`, with a predictor of classes:
  `probabilities` adds those of all classes to that of the best; there is no
  overlay and no submission.
  """
  for flag, is_set, reason in (
      ("--opacity", opacity is not None, "no overlays"),
      ("--submission", submission, "no server that takes maps"),
  ):
    if is_set:
      raise errors.UserError(
          f"{flag}: {spec.name} has one class per image and {reason}; leave it"
          " out"
      )
  header = ["image", "class", "probability"]
  if probabilities:
    header += spec.class_names
  sizes = _read_sizes(paths)
  folder = outputs.OutputFolder(output, [("predictions.csv", None)])
  text = io.StringIO(newline="")
  writer = csv.writer(text)
  writer.writerow(header)
  for path, _, values in _predict(predictor, variables, paths, sizes, True):
    best = int(values.argmax())
    row = [path, spec.class_names[best], f"{values[best]:.6f}"]
    if probabilities:
      row += [f"{value:.6f}" for value in values]
    writer.writerow(row)
  # A name that is no UTF-8 keeps its bytes.
  data = text.getvalue().encode("utf-8", "surrogateescape")
  folder.write("predictions.csv", data)
  return len(paths)


def _read_sizes(paths: Sequence[pathlib.Path]) -> np.ndarray:
  """Returns (H, W) of image files from their headers, [N, 2]."""
  sizes = []
  for path in paths:
    data = files.read_bytes(path, what="an image file")
    sizes.append(images_lib.image_size(data, files.printable(path)))
  return np.array(sizes)


def _predict(
    predictor: batching.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    sizes: np.ndarray,
    probabilities: bool,
) -> Iterator[tuple[pathlib.Path, np.ndarray, np.ndarray]]:
  """Yields path, image and what is predicted for each image."""

  def load(i):
    return {"path": paths[i], "image": images_lib.decode_image(paths[i])}

  with (
      contextlib.closing(
          predictor.batches(variables, sizes, load, probabilities=probabilities)
      ) as batches,
      progress.shown("predicting") as report,
  ):
    done = 0
    for batch in batches:
      for example, result in zip(batch.examples, batch.results(), strict=True):
        yield example["path"], example["image"], result
      done += batch.num_images
      report(done, len(paths))
