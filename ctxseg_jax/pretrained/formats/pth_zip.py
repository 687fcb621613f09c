"""Files of PyTorch 1.6 and later: a zip archive of one folder.

In it a pickle `data.pkl`, which says what there is, and under `data/` the
storages as they lie in memory.
"""

import mmap
import os
import sys

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import pickles
from ctxseg_jax.pretrained.formats import pth
from ctxseg_jax.pretrained.formats import stored_zip

MAGIC = b"PK\x03\x04"

_LARGEST_PICKLE = 256 * 2**20  # Logs of a long training can be a tenth of it.


def read(
    path: str | os.PathLike[str], data: mmap.mmap
) -> dict[str, np.ndarray]:
  """Reads the weights of a file.

  Args:
    path: The file's name, for messages.
    data: The whole file.

  Returns:
    By name, views of `data` that cannot be written to, in the order of the
    file.

  Raises:
    UserError: It holds something else than weights.
    ValueError: It is cut short or damaged; the message has no name of the file.
  """
  archive = stored_zip.StoredZip(data)
  folder = _find_folder(path, archive)
  if f"{folder}/byteorder" in archive.records:
    order = bytes(archive.read(f"{folder}/byteorder")[:10])
    if order != sys.byteorder.encode():
      raise errors.UserError(
          f"{path}: written with the byte order {order!r}; expected "
          f"{sys.byteorder}. Load and save it with PyTorch on a machine such "
          "as this one."
      )
  pickled = archive.read(f"{folder}/data.pkl")
  if pickled.nbytes > _LARGEST_PICKLE:
    raise ValueError(f"{pickled.nbytes} bytes in data.pkl")
  value = pickles.read(bytes(pickled))

  views = {}  # So that the checksum of one that is shared is taken once.

  def find_storage(storage):
    name = f"{folder}/data/{storage.key}"
    if name not in archive.records:
      raise ValueError(f"its storage {storage.key[:100]!r} is missing")
    if name not in views:
      views[name] = archive.read(name)
    return views[name]

  return pth.read_weights(path, value, find_storage, len(data))


def _find_folder(
    path: str | os.PathLike[str], archive: stored_zip.StoredZip
) -> str:
  """Returns the name of the one folder that holds all records."""
  folders = {name.split("/", 1)[0] for name in archive.records}
  folder = min(folders, default="")
  strange = [
      name
      for name in archive.records
      if "\\" in name or {"", ".", ".."} & set(name.split("/"))
  ]
  if len(folders) != 1 or strange:
    raise errors.UserError(
        f"{path}: a zip archive with the records "
        f"{sorted(strange or archive.records)[0][:100]!r} and others; expected "
        "the one folder that torch.save writes. Pass the file of the weights "
        "itself."
    )
  if f"{folder}/constants.pkl" in archive.records:
    raise errors.UserError(
        f"{path}: a TorchScript program; expected a state dict. Save "
        "torch.jit.load(file).state_dict() with PyTorch."
    )
  if f"{folder}/data.pkl" not in archive.records:
    raise errors.UserError(
        f"{path}: a zip archive without data.pkl; expected what torch.save "
        "writes. Pass the file of the weights itself."
    )
  return folder
