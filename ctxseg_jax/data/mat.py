"""Label ids from MATLAB files, in which some datasets keep their labels."""

import io
import pathlib

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files


def read_ids(path: pathlib.Path, *fields: str, num_ids: int) -> np.ndarray:
  """Returns a matrix of label ids, uint16 [H, W].

  Args:
    path: A MATLAB file, version 5 to 7.
    *fields: Name of the variable and of the fields inside it that lead there.
    num_ids: Ids are 0 to `num_ids - 1`, at most 65,536.

  Raises:
    UserError: The file is unreadable or damaged, or holds something else.
  """
  # Here, because it takes a quarter of a second and few datasets need it.
  import scipy.io

  data = files.read_bytes(path, what="a MATLAB file of labels")
  place = f"{path}: {'.'.join(fields)}"
  try:
    value = scipy.io.loadmat(io.BytesIO(data), struct_as_record=False)
    value = value[fields[0]]
    for field in fields[1:]:
      value = getattr(value.item(), field)  # A struct is an array of one.
    ids = np.asarray(value).astype(np.int64)
  except Exception as error:  # A damaged file can lead the reader anywhere.
    reason = " ".join(f"{type(error).__name__} {error}".split())
    raise errors.UserError(
        f"{place} cannot be read ({reason}); expected a whole MATLAB file of "
        "labels. Replace the file."
    ) from error
  if ids.ndim != 2 or ids.size == 0 or not np.array_equal(ids, value):
    raise errors.UserError(
        f"{place} of shape {np.shape(value)}; expected a matrix of whole "
        "numbers. Replace the file."
    )
  if ids.min() < 0 or ids.max() >= num_ids:
    raise errors.UserError(
        f"{place} holds {ids.min()} to {ids.max()}; expected ids of 0 to "
        f"{num_ids - 1}. Replace the file."
    )
  return ids.astype(np.uint16)
