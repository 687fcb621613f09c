"""Exports of annotation tools, read as the tools write them.

Each reader takes the folder of the export and returns `contents.Contents`, or
None where the files that mark its tool's exports are not there.
"""

import dataclasses
import pathlib

from ctxseg_jax.data import own_files
from ctxseg_jax.data.exports import coco
from ctxseg_jax.data.exports import contents
from ctxseg_jax.data.exports import cvat
from ctxseg_jax.data.exports import labelme
from ctxseg_jax.data.exports import roboflow

READERS = (cvat.read, roboflow.read, labelme.read, coco.read)


def read(root: pathlib.Path) -> contents.Contents | None:
  """Returns what an export holds, its splits in order; None if it is none.

  Raises:
    UserError: A file that says what there is, or what it means, is faulty.
  """
  export = next(filter(None, (reader(root) for reader in READERS)), None)
  if export is None:
    return None
  found = {s: export.found[s] for s in own_files.SPLITS if s in export.found}
  faults = export.faults
  if not faults and not (found and all(found.values())):
    faults = [f"{root}: no images; expected some in each split. Add them."]
  return dataclasses.replace(export, found=found, faults=faults)
