"""JSON of whatever a run has: arrays, and figures that are not finite."""

from collections.abc import Mapping
import json
import math
from typing import Any

import numpy as np


def to_json(value: Any, **kwargs) -> str:
  """Returns JSON of arrays and containers; NaN and infinity are null."""
  return json.dumps(jsonable(value), allow_nan=False, **kwargs)


def jsonable(value: Any) -> Any:
  """Returns what `json` can hold in the place of a value."""
  if isinstance(value, Mapping):
    return {str(key): jsonable(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [jsonable(item) for item in value]
  if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars.
    array = np.asarray(value)
    if array.dtype.kind == "V":  # bfloat16 has no Python numbers.
      array = array.astype(np.float32)
    return jsonable(array.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
