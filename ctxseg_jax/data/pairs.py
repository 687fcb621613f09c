"""Reads and checks an image with its label.

Every fault of the files is reported by file name when the dataset is prepared,
and never met in training. Images are stored byte by byte as they are; labels
become gray PNGs of train ids.
"""

from collections.abc import Callable
import pathlib

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import finding
from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib


def read(
    spec: spec_lib.DatasetSpec,
    pair: finding.Pair,
    *,
    decode: Callable[[pathlib.Path], np.ndarray] = images.decode_label,
) -> spec_lib.Example:
  """Reads and checks one pair.

  Args:
    spec: The dataset.
    pair: Paths of image and label.
    decode: Reads a label file to uint8 raw ids [H, W].

  Returns:
    The image as it is on disk, and the label as train ids.

  Raises:
    UserError: A file is unreadable or damaged, the sizes differ, or the label
      holds values that are no raw id.
  """
  data = files.read_bytes(pair.image, what="an image file")
  size = images.verify_image(data, str(pair.image))
  if pair.label is None:
    label = np.full(size, spec.ignore_label, np.uint8)
    return spec_lib.Example(pair.name, data, label)
  raw = decode(pair.label)
  if raw.shape != size:
    problem = f"{pair.label}: label of {_size(raw.shape)} for {pair.image} of "
    if images.orientation(data) >= 5 and raw.shape == size[::-1]:
      raise errors.UserError(
          f"{problem}{_size(raw.shape)}, which its EXIF orientation turns to "
          f"{_size(size)} (height x width); expected a label of the picture as "
          "viewers show it. Turn the label, or remove the orientation from the "
          "image."
      )
    raise errors.UserError(
        f"{problem}{_size(size)} (height x width); expected equal sizes. "
        "Labels are never resized: replace the wrong one."
    )
  label = spec.map_label(raw, str(pair.label))
  return spec_lib.Example(pair.name, data, label)


def _size(shape: tuple[int, ...]) -> str:
  return f"{shape[0]}x{shape[1]}"
