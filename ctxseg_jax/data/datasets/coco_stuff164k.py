"""COCO-Stuff 164k: 80 classes of things and 91 of stuff.

Reference: Caesar et al., "COCO-Stuff: Thing and Stuff Classes in Context", CVPR
2018. The splits are train2017 and val2017 of COCO.

Labels are read as released, with ids of 0 to 181 of which eleven do not occur,
or as converted for mmsegmentation, with train ids.
"""

from ctxseg_jax.data import classes
from ctxseg_jax.data import layouts
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES, PALETTE = classes.read_published("coco_stuff164k")
NUM_RAW = 182
# Categories of COCO that were never annotated.
UNUSED_IDS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_RAW_IDS = [i for i in range(NUM_RAW) if i not in UNUSED_IDS]

LAYOUT = layouts.Layout(
    "images/{train2017,val2017}/*.jpg with labels in "
    "annotations/{train2017,val2017}/*.png or *_labelTrainIds.png; in the "
    "folder itself or in coco_stuff164k/ inside it",
    inside=("", "coco_stuff164k"),
    splits={"train": "train2017", "val": "val2017"},
    # Labels as released count before converted ones.
    variants=[
        layouts.Split(
            "images/{}",
            "annotations/{}",
            label_ends=("", pairs.TRAIN_IDS_END),
        )
    ],
)

SPEC = spec_lib.DatasetSpec(
    name="coco_stuff164k",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.label_map({raw: i for i, raw in enumerate(_RAW_IDS)}),
    void_ids=(255,),
    split_sizes={"train": 118287, "val": 5000},
    find=LAYOUT.find,
    read=pairs.read_either,
    description=__doc__,
    layouts=LAYOUT.text,
)
