"""Labels that hold the colours of classes, to ids."""

from collections.abc import Mapping
import heapq
import operator

import numpy as np

from ctxseg_jax.data import spec as spec_lib

_NUM_TOLD = 256  # Unknown colours of a label; a photograph has many more.


def ids(
    rgb: np.ndarray,
    colors: Mapping[tuple[int, int, int], int],
    name: str,
    remedy: str = "Replace the file.",
) -> np.ndarray:
  """Returns the ids of the colours of a label, uint8 [H, W].

  Args:
    rgb: uint8 [H, W, 3].
    colors: The ids by colour.
    name: Of the label, for messages.
    remedy: What to do about other colours.

  Raises:
    UnknownValuesError: The label holds other colours.
  """
  codes = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
  values, inverse, counts = np.unique(
      codes, return_inverse=True, return_counts=True
  )
  found = [(c >> 16, c >> 8 & 255, c & 255) for c in values.tolist()]
  unknown = [
      (color, count)
      for color, count in zip(found, counts.tolist(), strict=True)
      if color not in colors
  ]
  if unknown:
    told = heapq.nlargest(_NUM_TOLD, unknown, key=operator.itemgetter(1))
    others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    raise spec_lib.UnknownValuesError(
        f"{name}: RGB label with the colour {told[0][0]} in {told[0][1]} "
        f"pixels{others}, which is no class; expected class ids (gray or "
        f"palette), or the colours of the dataset unchanged. {remedy}",
        np.zeros(256, np.int64),
        dict(told),
    )
  return np.array([colors[c] for c in found], np.uint8)[inverse].reshape(
      codes.shape
  )
