"""Files of weights: PyTorch's (.pth, .pt) and .safetensors, by their content.

A file from elsewhere may be damaged, something else than its name says, or made
to harm. Nothing in it is executed, no more memory is taken than the file is
long, and what is wrong is told in one line.
"""

from collections.abc import Iterator
import contextlib
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

# How files begin that are taken for weights -> what they are, what to do.
_OTHERS = {
    rb"\s*version https://git-lfs": (
        "a Git LFS pointer, not the file itself",
        "Fetch it with git lfs pull.",
    ),
    rb"(?i)\s*(<!doctype|<html|<\?xml)": (
        "a web page, perhaps the error of a download",
        "Download it again and look at it.",
    ),
    rb"(?s).{257}ustar": (
        "a tar archive, perhaps of the first PyTorch",
        "Unpack it or, if you trust it, save it anew with PyTorch: "
        "torch.save(torch.load(f, weights_only=False), f).",
    ),
    rb"\x80": (
        "a pickle, but not of PyTorch",
        "If you trust it, save what is in it as .safetensors.",
    ),
}


def read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the weights of a .pth, .pt or .safetensors file of any name.

  Taken out of what a training program wraps around them (`pth.WRAPPERS`), and
  without the `module.` of `DataParallel`.

  Returns:
    By name, arrays of the types in the file (bfloat16 by `ml_dtypes`), views of
    the file that cannot be written to: leave it in place, or copy them. And the
    metadata, of .pth files those of `pth.read_notes`.

  Raises:
    UserError: The file is missing, damaged, or holds something else than finite
      dense tensors by name.
  """
  path, metadata = files.local_path(path, "weights"), {}
  with files.open_regular(path, what=_WHAT) as file, _naming(path):
    if not os.fstat(file.fileno()).st_size:
      raise errors.UserError(f"empty; {_EXPECTED}. Download it again.")
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    head = data[:512]
    if head.startswith(pth_zip.MAGIC):
      tensors, metadata = pth_zip.read(data)
    elif head.startswith(b"\x80") and pth_legacy.MAGIC in head[:32]:
      tensors, metadata = pth_legacy.read(data)
    elif head[8:9] == b"{":
      tensors, metadata = safetensors_file.read(path, data)
    else:
      raise errors.UserError(_describe_other(head))
    if not tensors:
      raise errors.UserError(f"holds no tensors; {_EXPECTED}. Replace it.")
    for name, tensor in tensors.items():
      with np.errstate(invalid="ignore"):  # Comparing some NaN warns.
        finite = tensor.dtype.kind in "biu" or np.isfinite(tensor).all()
      if not finite:
        raise errors.UserError(
            f"{name[:100]!r} holds values that are not finite; expected trained"
            " weights. Download it again, or use an earlier checkpoint."
        )
  while all(name.startswith(_PARALLEL) for name in tensors):
    tensors = {k.removeprefix(_PARALLEL): v for k, v in tensors.items()}
  return tensors, metadata


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
  """Puts the file's name before what is wrong with it, on one line."""
  shown = files.printable(path)
  try:
    yield
  except errors.UserError as error:
    raise errors.UserError(f"{shown}: {error}") from error
  except ValueError as error:
    reason = str(error)[:300]
    if not reason.isprintable():  # It can repeat what is in the file.
      reason = ascii(reason)
    raise errors.UserError(
        f"{shown}: cut short or damaged ({reason}); {_EXPECTED}. Download it"
        " again."
    ) from error


def _describe_other(head: bytes) -> str:
  for pattern, (found, remedy) in _OTHERS.items():
    if re.match(pattern, head):
      return f"{found}; {_EXPECTED}. {remedy}"
  return (
      f"not weights (it begins with {head[:8]!r}); {_EXPECTED}. Pass another "
      "file or download it again."
  )
