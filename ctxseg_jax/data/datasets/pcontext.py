"""PASCAL-Context, with 59 classes or with the background as a 60th.

Reference: Mottaghi et al., "The Role of Context for Object Detection and
Semantic Segmentation in the Wild", CVPR 2014.

The release labels 459 categories. Benchmarks keep the 59 most frequent ones, in
alphabetical order here as in mmsegmentation, and call the rest background. With
59 classes the background is ignored; a network that learns 60 is several points
lower and not comparable. Papers also have figures for 60 classes from networks
of 59, with an IoU of 0 for the background: 59/60 of the others.

The paper's splits are those of VOC 2010. The converters of today read them from
a file of annotations that leaves out three images, so that they find 4,996 and
5,104. Both editions are accepted.
"""

import functools
import pathlib

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import classes
from ctxseg_jax.data import images
from ctxseg_jax.data import layouts
from ctxseg_jax.data import mat
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

# By converted id; the background is 0.
_CLASS_NAMES, _PALETTE = classes.read_published("pcontext60")
NUM_RAW = 460  # Ids of the release, 0 included.
# The id in the release of each class, the background first.
RAW_IDS = (
    *(0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80),
    *(85, 98, 104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232),
    *(258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360),
    *(366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
_CONVERTED = np.zeros(NUM_RAW, np.uint8)
_CONVERTED[list(RAW_IDS)] = np.arange(len(RAW_IDS))

_RAW_DIR = "trainval"
_LAYOUT = layouts.Layout(
    "JPEGImages/*.jpg, ImageSets/{SegmentationContext,Main}/{train,val}.txt "
    "and SegmentationClassContext/*.png of ids 0-59, or trainval/*.mat or "
    "trainval/*.png of ids 0-459; in the folder itself, in VOC2010/ or in "
    "VOCdevkit/VOC2010/ inside it",
    inside=("", "VOC2010", "VOCdevkit/VOC2010"),
    splits={"train": "train", "val": "val"},
    variants=[
        layouts.Split(
            "JPEGImages", labels, f"ImageSets/{lists}/{{}}.txt", needs_list=True
        )
        for labels in ("SegmentationClassContext", _RAW_DIR)
        for lists in ("SegmentationContext", "Main")
    ],
)


def decode(path: pathlib.Path) -> np.ndarray:
  """Returns the converted ids of a label, uint8 [H, W]."""
  if path.suffix.lower() == ".mat":
    return _CONVERTED[mat.read_ids(path, "LabelMap", num_ids=NUM_RAW)]
  if path.parent.name == _RAW_DIR:
    raw = images.decode_label(path, deep=True)
    if raw.max() >= NUM_RAW:
      raise errors.UserError(
          f"{path}: label value {raw.max()}; expected 0-{NUM_RAW - 1}, the ids "
          "of the release. Replace the file."
      )
    return _CONVERTED[raw]
  return images.decode_label(path)


def _make_spec(with_background: bool) -> spec_lib.DatasetSpec:
  first = 0 if with_background else 1
  names = _CLASS_NAMES[first:]
  return spec_lib.DatasetSpec(
      name=f"pcontext{len(names)}",
      class_names=names,
      palette=_PALETTE[first:],
      label_map=spec_lib.label_map({i + first: i for i in range(len(names))}),
      void_ids=() if with_background else (0,),
      split_sizes={"train": 4998, "val": 5105},
      variant_sizes={"train": 4996, "val": 5104},
      extra_figures=() if with_background else ("miou_with_background",),
      find=_LAYOUT.find,
      read=functools.partial(pairs.read, decode=decode),
      description=__doc__,
      layouts=_LAYOUT.text,
  )


SPEC_59 = _make_spec(with_background=False)
SPEC_60 = _make_spec(with_background=True)
