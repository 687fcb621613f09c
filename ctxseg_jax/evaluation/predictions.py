"""Writes what a network makes of a user's own images."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import csv
import glob
import io
import os
import pathlib
import re
from typing import Any

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import progress
from ctxseg_jax.data import finding
from ctxseg_jax.data import images as images_lib
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import explanation
from ctxseg_jax.evaluation import explanation_picture
from ctxseg_jax.evaluation import outputs
from ctxseg_jax.evaluation import pictures

_SUFFIXES = sorted(finding.IMAGE_SUFFIXES)


def list_images(path: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the images that a path stands for, sorted by name.

  It is an image, a folder with its subfolders (but hidden ones and those that
  predictions were written to), a pattern such as `photos/**/*.jpg`, or a `.txt`
  file with one image per line, taken from the folder of the list if it is not
  absolute.

  Raises:
    UserError: There is nothing there, or a listed file is missing.
  """
  found = files.local_path(path, "--images")
  shown = files.printable(found)
  if not os.path.lexists(found):
    if not glob.has_magic(os.fspath(found)):
      raise errors.UserError(f"--images: {shown}: there is nothing")
    names = glob.glob(os.fspath(found), recursive=True)
    return _images_among(names, f"match {shown}")
  if found.is_dir():
    return _images_among(_walk(found), f"in {shown}")
  if found.suffix.lower() != ".txt":
    return [found]
  lines = files.read_text(found, what="a list of images").splitlines()
  listed = {
      n: found.parent / x.strip() for n, x in enumerate(lines, 1) if x.strip()
  }
  for number, image in listed.items():
    if not image.is_file():
      raise errors.UserError(
          f"{shown}, line {number}: no file {files.printable(image)}"
      )
  if not listed:
    raise errors.UserError(f"--images: the list {shown} is empty")
  return list(listed.values())


def _images_among(names, where):
  paths = sorted(
      path
      for path in map(pathlib.Path, names)
      if path.suffix.lower() in _SUFFIXES and not path.is_dir()
  )
  if not paths:
    known = ", ".join(_SUFFIXES)
    raise errors.UserError(f"--images: no {known} files {where}")
  return paths


def _walk(folder: pathlib.Path) -> Iterator[str]:
  """Yields the files of a folder and of its subfolders."""

  def fail(error):  # It ends the command with one line, as everywhere.
    raise error

  for root, folders, names in os.walk(folder, onerror=fail):
    folders[:] = [
        name
        for name in folders
        if not name.startswith(".")
        and not os.path.lexists(os.path.join(root, name, outputs.LIST))
    ]
    yield from (os.path.join(root, name) for name in names)


def output_names(paths: Sequence[pathlib.Path]) -> list[str]:
  """Returns what the files of each image are called, without suffixes.

  The folders below that which all images are in come first: "street/a".
  """
  absolute = [os.path.abspath(path) for path in paths]
  top = os.path.commonpath(map(os.path.dirname, absolute))
  return [os.path.splitext(os.path.relpath(x, top))[0] for x in absolute]


def write_maps(
    predictor: batching.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    output: str | os.PathLike[str],
    spec: spec_lib.DatasetSpec,
    *,
    opacity: float | None = None,
    probabilities: bool = False,
    probability_pngs: bool = False,
    submission: bool = False,
    explain: bool = False,
    point: str | None = None,
) -> int:
  """Predicts images and writes `<name>.png` and `<name>_overlay.png`.

  The name is that of the image, with its folder where there are several.

  Args:
    predictor: Makes class maps with `variables`.
    paths: Image files.
    output: Folder to write to; made if it is not there.
    spec: The data set, whose palette and server it is.
    opacity: Of the classes in the overlay; None is one half.
    probabilities: Whether to write `<name>.npy`, float16 [H, W, C], too.
    probability_pngs: Whether to write `<name>_probabilities/<class>.png`, gray
      of 16 bits with 65535 for 1, too.
    submission: Whether to write `submission/<name>.png`, gray, with the ids of
      the data set's server, too.
    explain: Whether to write `<name>_explain.png`, what the context head sees,
      too.
    point: Of every image, for that, as `x,y` in pixels; None is the centre.

  Returns:
    The number of images.

  Raises:
    UserError: An image cannot be read, a file is in the way (see
      `outputs.OutputFolder`), there is no server, or nothing to explain.
  """
  if submission and not spec.submission_ids:
    raise errors.UserError(
        f"--submission: {spec.name} has no server that takes predictions; leave"
        " it out"
    )
  opacity = 0.5 if opacity is None else opacity
  if not 0 <= opacity <= 1:
    raise errors.UserError(f"--opacity: expected 0 to 1, got {opacity}")
  planes = []
  if probability_pngs:
    slugs = [re.sub(r"[^\w-]+", "-", name) for name in spec.class_names]
    planes = [f"{{}}_probabilities/{i:03}_{x}.png" for i, x in enumerate(slugs)]
  patterns = ["{}.png", "{}_overlay.png", *planes]
  patterns += ["{}.npy"] * probabilities + ["submission/{}.png"] * submission
  patterns += ["{}_explain.png"] * explain
  names = output_names(paths)
  sizes = _read_sizes(paths)
  explainer = None
  if explain:
    explainer = explanation.Explainer(predictor, variables, spec)
    at = explanation.parse_point(point)
    for path, size in zip(paths, sizes, strict=True):
      explanation.check_point(at, size, files.printable(path))
  elif point is not None:
    raise errors.UserError("--point: needs --explain; add it, or leave it out")
  folder = outputs.OutputFolder(
      output,
      [
          (pattern.format(name), path)
          for path, name in zip(paths, names, strict=True)
          for pattern in patterns
      ],
  )
  names = dict(zip(paths, names, strict=True))
  want_all = probabilities or probability_pngs
  for path, image, values in _predict(
      predictor, variables, paths, sizes, want_all
  ):

    def write(pattern, *parts, name=names[path]):
      folder.write(pattern.format(name), *parts)

    labels = values.argmax(axis=-1) if want_all else values
    labels = labels.astype(np.uint8)
    write("{}.png", pictures.encode_palette_png(labels, spec.palette))
    overlay = pictures.labelled_overlay(
        image, labels, spec.class_names, spec.palette, opacity
    )
    write("{}_overlay.png", images_lib.encode_png(overlay))
    if explainer:
      picture = explanation_picture.draw(
          explainer(image, at, labels), spec.class_names, spec.palette
      )
      write("{}_explain.png", images_lib.encode_png(picture))
    if submission:
      ids = np.array(spec.submission_ids, np.uint8)[labels]
      write("submission/{}.png", images_lib.encode_png(ids))
    for i, pattern in enumerate(planes):
      plane = np.rint(65535 * values[..., i]).astype(np.uint16)
      write(pattern, images_lib.encode_png(plane))
    if probabilities:
      halves = values.astype(np.float16)
      header = io.BytesIO()
      np.lib.format.write_array_header_1_0(
          header, np.lib.format.header_data_from_array_1_0(halves)
      )
      write("{}.npy", header.getvalue(), halves.data)
  return len(paths)


def write_classes(
    predictor: batching.Predictor,
    variables: Any,
    paths: Sequence[pathlib.Path],
    output: str | os.PathLike[str],
    spec: spec_lib.DatasetSpec,
    *,
    probabilities: bool = False,
    **of_maps: Any,
) -> int:
  """Predicts images and writes `predictions.csv`, one line for each.

  Arguments and errors are those of `write_maps`, with a predictor of classes:
  `probabilities` adds those of all classes to that of the best; the others are
  refused, as there is no overlay and no submission.
  """
  for name, value in of_maps.items():
    if value is not None and value is not False:
      raise errors.UserError(
          f"--{name}: {spec.name} has one class per image and no maps; leave it"
          " out"
      )
  rows = [["image", "class", "probability"]]
  rows[0] += spec.class_names if probabilities else ()
  sizes = _read_sizes(paths)
  folder = outputs.OutputFolder(output, [("predictions.csv", None)])
  for path, _, values in _predict(predictor, variables, paths, sizes, True):
    best = int(values.argmax())
    shown = [values[best], *(values if probabilities else ())]
    rows.append([path, spec.class_names[best], *(f"{x:.6f}" for x in shown)])
  text = io.StringIO(newline="")
  csv.writer(text).writerows(rows)
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
    predictor, variables, paths, sizes, probabilities
) -> Iterator[tuple[pathlib.Path, np.ndarray, np.ndarray]]:
  """Yields path, image and what is predicted for each image."""

  def load(i):
    return {"path": paths[i], "image": images_lib.decode_image(paths[i])}

  batches = predictor.batches(
      variables, sizes, load, probabilities=probabilities
  )
  with contextlib.closing(batches), progress.shown("predicting") as report:
    done = 0
    for batch in batches:
      for example, result in zip(batch.examples, batch.results(), strict=True):
        yield example["path"], example["image"], result
      done += batch.num_images
      report(done, len(paths))
