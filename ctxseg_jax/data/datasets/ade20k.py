"""ADE20K, the scene parsing benchmark of 150 classes.

Reference: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017. This
is the edition of the 2016 challenge, on which papers report.

Files hold 1 to 150 for the classes and 0 for everything else, which is ignored.
"""

import pathlib

from ctxseg_jax import errors
from ctxseg_jax.data import classes
from ctxseg_jax.data import finding
from ctxseg_jax.data import layouts
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES, PALETTE = classes.read_published("ade20k")

# Folder and start of the file names, which are numbered from 1.
_FOLDERS = {
    "train": ("training", "ADE_train_"),
    "val": ("validation", "ADE_val_"),
}
_LAYOUTS = (
    "images/{training,validation}/*.jpg with labels in "
    "annotations/{training,validation}/*.png; in the folder itself or in "
    "ADEChallengeData2016/ inside it"
)


def find(source: pathlib.Path, *, any_size: bool) -> finding.Pairs:
  """Finds the pairs of both splits; see `DatasetSpec.find`."""
  root = layouts.find_root(
      source,
      ("", "ADEChallengeData2016"),
      ("annotations/training", "annotations/validation"),
      _LAYOUTS,
  )
  splits = {
      split: layouts.Split(
          root / "images" / folder, root / "annotations" / folder
      )
      for split, (folder, _) in _FOLDERS.items()
  }
  found = layouts.find_splits(splits, _LAYOUTS, any_size=any_size)
  for split, pairs_of in found.items() if not any_size else ():
    _check_complete(split, pairs_of, splits[split].images, _FOLDERS[split][1])
  return found


SPEC = spec_lib.DatasetSpec(
    name="ade20k",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.label_map(
        {i + 1: i for i in range(len(CLASS_NAMES))}, 255
    ),
    void_ids=(0,),
    submission_ids=tuple(range(1, len(CLASS_NAMES) + 1)),
    split_sizes={"train": 20210, "val": 2000},
    find=find,
    read=pairs.read,
    description=__doc__,
    layouts=_LAYOUTS,
)


def _check_complete(
    split: str, found: list[finding.Pair], folder: pathlib.Path, start: str
) -> None:
  """Names the first image that is missing, by the numbers in the names."""
  names = {pair.name for pair in found}
  size = SPEC.split_sizes[split]
  for i in range(1, size + 1):
    name = f"{start}{i:08}"
    if name not in names:
      raise errors.UserError(
          f"{folder}: found {len(found)} images of {split}, expected {size}; "
          f"the first that is missing is {name}.jpg. Complete the folder, or "
          "pass --any_size to prepare what is there."
      )
