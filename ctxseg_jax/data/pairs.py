"""Reads and checks an image with its label.

Every fault of the files is reported by file name when the dataset is prepared,
and never met in training. JPEG and PNG images are stored byte by byte as they
are, others as PNG; labels become gray PNGs of train ids.
"""

from collections.abc import Callable
import dataclasses
import pathlib

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import finding
from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib

TRAIN_IDS_END = "_labelTrainIds"


def read(
    spec: spec_lib.DatasetSpec,
    pair: finding.Pair,
    *,
    decode: Callable[[pathlib.Path], np.ndarray] = images.decode_label,
    is_mapped: bool = False,
) -> spec_lib.Example:
  """Returns the image of a pair as it is on disk, and its label as train ids.

  Args:
    spec: The dataset.
    pair: Paths of image and label.
    decode: Reads a label file to uint8 raw ids [H, W].
    is_mapped: Whether `decode` returns train ids.

  Raises:
    UserError: A file is unreadable or damaged, the sizes differ, or the label
      holds values that are no raw id.
  """
  data = files.read_bytes(pair.image, what="an image file")
  data = images.to_stored(data, str(pair.image))
  size = images.verify_image(data, str(pair.image))
  if pair.label is None:
    label = np.full(size, spec.ignore_label, np.uint8)
    return spec_lib.Example(pair.name, data, label)
  raw = decode(pair.label)
  if raw.shape != size:
    found, expected = ("x".join(map(str, shape)) for shape in (raw.shape, size))
    problem = (
        f"{expected} (height x width); expected equal sizes. Labels are never "
        "resized: replace the wrong one."
    )
    if images.orientation(data) >= 5 and raw.shape == size[::-1]:
      problem = (
          f"{found}, which its EXIF orientation turns to {expected} (height x "
          "width); expected a label of the picture as viewers show it. Turn "
          "the label, or remove the orientation from the image."
      )
    raise errors.UserError(
        f"{pair.label}: label of {found} for {pair.image} of {problem}"
    )
  label = raw if is_mapped else spec.map_label(raw, str(pair.label))
  return spec_lib.Example(pair.name, data, label)


def read_either(
    spec: spec_lib.DatasetSpec, pair: finding.Pair
) -> spec_lib.Example:
  """Reads a pair whose label is as released or of train ids, by its name."""
  if pair.label is not None and holds_train_ids(pair.label):
    spec = dataclasses.replace(
        spec,
        label_map=spec_lib.identity_map(spec.num_classes),
        void_ids=(spec.ignore_label,),
    )
  return read(spec, pair)


def holds_train_ids(label: pathlib.Path) -> bool:
  """Whether a label was converted to train ids, as for mmsegmentation."""
  return label.stem.endswith(TRAIN_IDS_END)
