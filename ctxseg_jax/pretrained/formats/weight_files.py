"""Files of weights: PyTorch's (.pth, .pt) and .safetensors, by their content.

A file from elsewhere may be damaged, something else than its name says, or made
to harm. Nothing in it is executed, no more memory is taken than the file is
long, and what is wrong is told in one line.
"""

import mmap
import os
import re

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.pretrained.formats import pth_legacy
from ctxseg_jax.pretrained.formats import pth_zip
from ctxseg_jax.pretrained.formats import safetensors_file

_WHAT = "weights as .pth or .safetensors"
_EXPECTED = f"expected {_WHAT}"
_PARALLEL = "module."  # What `DataParallel` puts before every name.

# How files begin that are taken for weights, what they are, what to do.
_OTHERS = (
    (
        rb"\s*version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "Fetch it with git lfs pull.",
    ),
    (
        rb"(?i)\s*(<!doctype|<html|<\?xml)",
        "a web page, perhaps the error of a download",
        "Download it again and look at it.",
    ),
    (
        rb"(?s).{257}ustar",
        "a tar archive, perhaps of the first PyTorch",
        "Unpack it or, if you trust it, save it anew with PyTorch: "
        "torch.save(torch.load(f, weights_only=False), f).",
    ),
    (
        rb"\x80",
        "a pickle, but not of PyTorch",
        "If you trust it, save what is in it as .safetensors.",
    ),
)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads the weights of a file.

  Taken out of what a training program wraps around them (`pth.WRAPPERS`), and
  without the `module.` of `DataParallel`.

  Args:
    path: A .pth, .pt or .safetensors file of any name.

  Returns:
    By name, arrays of the types in the file (bfloat16 by `ml_dtypes`). Views of
    the file that cannot be written to: leave it in place, or copy them.

  Raises:
    UserError: The file is missing, damaged, or holds something else than finite
      dense tensors by name.
  """
  path = files.local_path(path, "weights")
  data = _open(path)
  head = data[:512]
  try:
    if head.startswith(pth_zip.MAGIC):
      tensors = pth_zip.read(path, data)
    elif head.startswith(b"\x80") and pth_legacy.MAGIC in head[:32]:
      tensors = pth_legacy.read(path, data)
    elif _is_safetensors(head):
      tensors, _ = safetensors_file.read(path, data)
    else:
      raise errors.UserError(f"{path}: {_recognise(head)}")
  except ValueError as error:
    raise _damaged(path, error) from error
  if not tensors:
    raise errors.UserError(
        f"{path}: holds no tensors; {_EXPECTED}. Replace it."
    )
  for name, tensor in tensors.items():
    _check_finite(path, name, tensor)
  while all(name.startswith(_PARALLEL) for name in tensors):
    tensors = {k.removeprefix(_PARALLEL): v for k, v in tensors.items()}
  return tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """Reads what a .safetensors file tells of its weights.

  Raises:
    UserError: It is missing, damaged, or not a .safetensors file.
  """
  path = files.local_path(path, "weights")
  data = _open(path)
  if not _is_safetensors(data[:512]):
    raise errors.UserError(
        f"{path}: not a .safetensors file; expected one, which alone has "
        "metadata. Pass another file."
    )
  try:
    return safetensors_file.read(path, data)[1]
  except ValueError as error:
    raise _damaged(path, error) from error


def _open(path: str | os.PathLike[str]) -> mmap.mmap:
  """Returns the content of a file without reading it into memory."""
  with files.open_regular(path, what=_WHAT) as file:
    if not os.fstat(file.fileno()).st_size:
      raise errors.UserError(f"{path}: empty; {_EXPECTED}. Download it again.")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _is_safetensors(head: bytes) -> bool:
  return head[8:9] == b"{"


def _recognise(head: bytes) -> str:
  """Returns what a file is that holds no weights, and what to do."""
  for pattern, found, remedy in _OTHERS:
    if re.match(pattern, head):
      return f"{found}; {_EXPECTED}. {remedy}"
  return (
      f"not weights (it begins with {head[:8]!r}); {_EXPECTED}. Pass another "
      "file or download it again."
  )


def _check_finite(
    path: str | os.PathLike[str], name: str, tensor: np.ndarray
) -> None:
  with np.errstate(invalid="ignore"):  # Some NaN ask to be told of as well.
    if tensor.dtype.kind in "biu" or np.isfinite(tensor).all():
      return
  raise errors.UserError(
      f"{path}: {name[:100]!r} holds values that are not finite; expected "
      "trained weights. Download it again, or use an earlier checkpoint."
  )


def _damaged(
    path: str | os.PathLike[str], error: ValueError
) -> errors.UserError:
  reason = str(error)[:300]
  if not reason.isprintable():  # It can repeat what is in the file.
    reason = ascii(reason)
  return errors.UserError(
      f"{path}: cut short or damaged ({reason}); {_EXPECTED}. "
      "Download it again."
  )
