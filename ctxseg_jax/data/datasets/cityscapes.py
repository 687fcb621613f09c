"""Cityscapes: 19 classes of street scenes, 2048x1024.

Reference: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene
Understanding", CVPR 2016.

Labels are read from the files of label ids, or from those of train ids where
only these are there. `test` has no public labels and is stored with all pixels
ignored. `train_extra` has coarse labels.
"""

from ctxseg_jax.data import classes
from ctxseg_jax.data import layouts
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES, PALETTE = classes.read_published("cityscapes")
# The label id of each train id. Servers for submissions take label ids.
LABEL_IDS = (
    *(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28),
    *(31, 32, 33),
)
NUM_LABEL_IDS = 34


def _split(name: str, kind: str) -> layouts.Split:
  return layouts.Split(
      f"leftImg8bit/{name}",
      f"{kind}/{name}",
      image_end="_leftImg8bit",
      # Of two files for an image that of label ids counts.
      label_ends=(f"_{kind}_labelIds", f"_{kind}{pairs.TRAIN_IDS_END}"),
  )


_LAYOUT = layouts.Layout(
    "leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png with labels in "
    "gtFine/{train,val}/CITY/*_gtFine_labelIds.png or *_labelTrainIds.png, and "
    "optionally the same of train_extra with gtCoarse; in the folder itself or "
    "in cityscapes/ inside it",
    inside=("", "cityscapes"),
    splits={"train": "train", "val": "val"},
    variants=[_split("{}", "gtFine")],
    optional={
        "test": layouts.Split(
            "leftImg8bit/test", None, image_end="_leftImg8bit"
        ),
        "train_extra": _split("train_extra", "gtCoarse"),
    },
)

SPEC = spec_lib.DatasetSpec(
    name="cityscapes",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.label_map({raw: i for i, raw in enumerate(LABEL_IDS)}),
    void_ids=tuple(sorted(set(range(NUM_LABEL_IDS)) - set(LABEL_IDS))),
    submission_ids=LABEL_IDS,
    split_sizes=dict(train=2975, val=500, test=1525, train_extra=19998),
    optional_splits=tuple(_LAYOUT.optional),
    find=_LAYOUT.find,
    read=pairs.read_either,
    description=__doc__,
    layouts=_LAYOUT.text,
)
