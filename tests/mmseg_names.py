"""Tensors made from their names, for comparisons with other projects.

Needs numpy only: the makers of the golden files import it beside PyTorch, the
tests beside JAX. Tests import it as `mmseg_names`: pytest puts the folder of a
test file without `__init__.py` at the front of `sys.path`.
"""

from collections.abc import Mapping
from typing import Any
import zlib

import numpy as np


def make_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Makes the values of a weight, a statistic or an input from its name.

  Both sides of a comparison call this, so that golden files need no weights.
  `RandomState` is the generator whose numbers numpy promises never to change.
  Convolutions keep the scale of rectified inputs (He, fan-in); the ranges of
  batch norm keep activations and their growth over 33 blocks moderate, with
  no statistic near its initial 0 or 1.

  Args:
    name: A name of their state dict, or of an input; ranges go by its end.
    shape: In their layout.
  """
  kind = name.rpartition(".")[2]
  if len(shape) > 1 and kind == "weight":
    limit = (6.0 / np.prod(shape[1:])) ** 0.5
    low, high = -limit, limit
  else:
    low, high = {
        "weight": (0.5, 1.5),
        "bias": (-0.5, 0.5),
        "running_mean": (-0.5, 0.5),
        "running_var": (1.0, 4.0),
        "codewords": (-1.0, 1.0),
        "bases": (-1.0, 1.0),
        "scale": (-1.0, 0.0),
        "images": (-2.0, 2.0),
        "features": (-1.0, 2.0),
    }[kind]
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  return rng.uniform(low, high, size=shape).astype(np.float32)


def sharpen(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the tensors, the convolution before EM steps times 8.

  The few bases of a narrow EMAHead would otherwise reconstruct all pixels
  nearly alike, and batch norm divide float32 noise by almost nothing.
  """
  return {
      name: 8.0 * x if name == "ema_mid_conv.conv.weight" else x
      for name, x in tensors.items()
  }
