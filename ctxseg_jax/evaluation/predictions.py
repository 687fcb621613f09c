"""Writes what a network makes of a user's own images."""

from collections.abc import Iterator
from collections.abc import Sequence
import csv
import pathlib
from typing import Any

from absl import logging
import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import images as images_lib
from ctxseg_jax.evaluation import classify
from ctxseg_jax.evaluation import inference
from ctxseg_jax.evaluation import visualize

_SUFFIXES = (".jpeg", ".jpg", ".png")


def list_images(path: str) -> list[pathlib.Path]:
  """Returns the images that a path stands for, sorted by name.

  Args:
    path: An image, a folder, or a `.txt` file with one image per line, taken
      from the folder of the list if it is not absolute.

  Raises:
    UserError: There is nothing there, or a listed file is missing.
  """
  found = pathlib.Path(path)
  if found.is_dir():
    paths = sorted(p for p in found.iterdir() if p.suffix.lower() in _SUFFIXES)
    if not paths:
      raise errors.UserError(
          f"--images: no {', '.join(_SUFFIXES)} files in {found}"
      )
    return paths
  if not found.is_file():
    raise errors.UserError(
        f"--images: {found} is not there; expected an image, a folder or a"
        " .txt list"
    )
  if found.suffix.lower() != ".txt":
    return [found]
  paths = []
  lines = found.read_text("utf-8-sig").splitlines()
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    listed = found.parent / line.strip()
    if not listed.is_file():
      raise errors.UserError(f"{found}, line {number}: no file {listed}")
    paths.append(listed)
  if not paths:
    raise errors.UserError(f"--images: the list {found} is empty")
  return paths


def write_maps(
    predictor: inference.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    output: pathlib.Path,
    spec: Any,
    *,
    opacity: float | None = None,
    probabilities: bool = False,
    submission: bool = False,
) -> int:
  """Predicts images and writes `<stem>.png` and `<stem>_overlay.png`.

  Args:
    predictor: Makes class maps.
    variables: Variables of the model, replicated.
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
    UserError: An image cannot be read, two have the same stem, or there is no
      server.
  """
  if submission and not spec.submission_ids:
    raise errors.UserError(
        f"--submission: {spec.name} has no server that takes predictions; leave"
        " it out"
    )
  stems = {}
  for path in paths:
    if path.stem in stems:
      raise errors.UserError(
          f"{path} and {stems[path.stem]}: both would be written to"
          f" {path.stem}.png; rename one or predict them apart"
      )
    stems[path.stem] = path
  output.mkdir(parents=True, exist_ok=True)
  if submission:
    (output / "submission").mkdir(exist_ok=True)
    ids = np.array(spec.submission_ids, np.uint8)
  opacity = 0.5 if opacity is None else opacity
  palette = np.array(spec.palette, np.uint8)
  for path, image, values in _predict(
      predictor, variables, paths, probabilities
  ):
    h, w = image.shape[:2]
    values = values[:h, :w]
    if probabilities:
      np.save(output / f"{path.stem}.npy", values.astype(np.float16))
      values = values.argmax(axis=-1)
    labels = values.astype(np.uint8)
    visualize.save_palette_png(output / f"{path.stem}.png", labels, palette)
    visualize.save_png(
        output / f"{path.stem}_overlay.png",
        visualize.overlay(image, labels, palette, opacity),
    )
    if submission:
      path = output / "submission" / f"{path.stem}.png"
      path.write_bytes(images_lib.encode_png(ids[labels]))
  return len(paths)


def write_classes(
    predictor: classify.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    output: pathlib.Path,
    spec: Any,
    *,
    opacity: float | None = None,
    probabilities: bool = False,
    submission: bool = False,
) -> int:
  """Predicts images and writes `predictions.csv`, one line for each.

  Args:
    predictor: Makes classes.
    variables: Variables of the model, replicated.
    paths: Image files.
    output: Folder to write to; made if it is not there.
    spec: The data set's `DatasetSpec`: its class names.
    opacity: None; there are no overlays.
    probabilities: Whether to write those of all classes, not of the best only.
    submission: False; there is no server.

  Returns:
    The number of images.

  Raises:
    UserError: An image cannot be read, or what is for maps is asked for.
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
  rows = []
  for path, _, values in _predict(predictor, variables, paths, True):
    best = int(values.argmax())
    rows.append([path, spec.class_names[best], f"{values[best]:.6f}"])
    if probabilities:
      rows[-1] += [f"{value:.6f}" for value in values]
  output.mkdir(parents=True, exist_ok=True)
  with open(output / "predictions.csv", "w", encoding="utf-8", newline="") as f:
    csv.writer(f).writerows([header, *rows])
  return len(paths)


def _predict(
    predictor: inference.Predictor | classify.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    probabilities: bool,
) -> Iterator[tuple[pathlib.Path, np.ndarray, np.ndarray]]:
  """Yields path, image and what is predicted, padded, for each image."""
  sizes = np.array(
      [images_lib.image_size(path.read_bytes(), str(path)) for path in paths]
  )
  sharding = NamedSharding(predictor.mesh, P(predictor.mesh.axis_names[0]))
  batch_size = predictor.settings.batch_size_per_device * predictor.mesh.size

  def put(array):
    return jax.device_put(np.ascontiguousarray(array), sharding)

  done = 0
  for key, members in predictor.plan(sizes):
    for at in range(0, len(members), batch_size):
      batch = [paths[int(i)] for i in members[at : at + batch_size]]
      images = [images_lib.decode_image(p.read_bytes(), str(p)) for p in batch]
      padding = [np.zeros((1, 1, 3), np.uint8)] * (batch_size - len(images))
      out = predictor.predict(
          variables, images + padding, key, put, probabilities=probabilities
      )
      for item in zip(batch, images, np.asarray(out), strict=False):
        yield item
        done += 1
        logging.info("%d/%d %s", done, len(paths), item[0])
