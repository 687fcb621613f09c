"""PASCAL VOC 2012 segmentation, with the additional labels of SBD.

References: Everingham et al., "The PASCAL Visual Object Classes Challenge: A
Retrospective", IJCV 2015; Hariharan et al., "Semantic Contours from Inverse
Detectors", ICCV 2011.

The split `trainaug` is what most papers train on: every image that VOC's train
or SBD labels, without VOC's val. Images of VOC's train keep VOC's own labels,
which are finer. Splits overlap, `trainval` holding `train` and `val`, and each
is stored whole.
"""

import functools
import pathlib

import numpy as np

from ctxseg_jax.data import classes
from ctxseg_jax.data import finding
from ctxseg_jax.data import images
from ctxseg_jax.data import layouts
from ctxseg_jax.data import mat
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES, PALETTE = classes.read_published("voc2012")
VOID = 255  # Borders of objects, and what is too hard to tell.

# Labels that went through an image editor come back in colours.
_COLORS = {color: i for i, color in enumerate(PALETTE)}
_COLORS[224, 224, 192] = VOID
_LISTS = "ImageSets/Segmentation"
_LAYOUT = layouts.Layout(
    "JPEGImages/*.jpg, SegmentationClass/*.png and "
    "ImageSets/Segmentation/{train,val}.txt, and for trainaug "
    "SegmentationClassAug/*.png or, beside the folder, "
    "{VOCaug,benchmark_RELEASE}/dataset/cls/*.mat; in the folder itself, in "
    "VOC2012/ or in VOCdevkit/VOC2012/ inside it",
    inside=("", "VOC2012", "VOCdevkit/VOC2012"),
    splits={"train": "train", "val": "val"},
    variants=[
        layouts.Split(
            "JPEGImages",
            "SegmentationClass",
            f"{_LISTS}/{{}}.txt",
            needs_list=True,
        )
    ],
)


def find(source: pathlib.Path, *, any_size: bool) -> finding.Pairs:
  """Finds the pairs of every split; see `DatasetSpec.find`."""
  found = _LAYOUT.find(source, any_size=any_size)
  if len(found) == 2:
    both = found["train"] + found["val"]
    found["trainval"] = sorted(both, key=lambda pair: pair.name)
    root, _ = _LAYOUT.locate(source)
    trainaug = _find_trainaug(root, found["train"], found["val"])
    if trainaug is not None:
      found["trainaug"] = trainaug
  return found


def decode(path: pathlib.Path) -> np.ndarray:
  """Returns the raw ids of a label of VOC or SBD, uint8 [H, W]."""
  if path.suffix.lower() == ".mat":
    ids = mat.read_ids(path, "GTcls", "Segmentation", num_ids=256)
    return ids.astype(np.uint8)
  return images.decode_label(path, colors=_COLORS)


SPEC = spec_lib.DatasetSpec(
    name="voc2012",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.identity_map(len(CLASS_NAMES)),
    submission_ids=tuple(range(len(CLASS_NAMES))),
    void_ids=(VOID,),
    split_sizes=dict(train=1464, val=1449, trainval=2913, trainaug=10582),
    optional_splits=("trainaug",),
    find=find,
    read=functools.partial(pairs.read, decode=decode),
    description=__doc__,
    layouts=_LAYOUT.text,
)


def _find_trainaug(
    root: pathlib.Path, train: list[finding.Pair], val: list[finding.Pair]
) -> list[finding.Pair] | None:
  """Finds the pairs of VOC and SBD together; None without SBD."""
  label_dir = root / "SegmentationClassAug"
  for release in ("VOCaug", "benchmark_RELEASE"):
    if not label_dir.is_dir():
      label_dir = root.parent / release / "dataset" / "cls"
  if not label_dir.is_dir():
    return None
  images_of = finding.list_folder(root / "JPEGImages")
  labels_of = finding.list_folder(label_dir)
  labels_of.files.update((pair.name, pair.label) for pair in train)
  list_file = root / _LISTS / "trainaug.txt"
  if list_file.is_file():
    found, faults = layouts.read_list(list_file, images_of, labels_of)
  else:
    names = labels_of.files.keys() - {pair.name for pair in val}
    found, faults = finding.match(images_of, labels_of, names)
  finding.refuse(faults + finding.shared({"trainaug": found, "val": val}))
  return found
