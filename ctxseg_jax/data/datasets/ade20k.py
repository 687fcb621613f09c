"""ADE20K, the scene parsing benchmark of 150 classes.

Reference: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017. This
is the edition of the 2016 challenge, on which papers report.

Files hold 1 to 150 for the classes and 0 for everything else, which is ignored.
"""

from ctxseg_jax.data import classes
from ctxseg_jax.data import layouts
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES, PALETTE = classes.read_published("ade20k")

_LAYOUT = layouts.Layout(
    "images/{training,validation}/*.jpg with labels in "
    "annotations/{training,validation}/*.png; in the folder itself or in "
    "ADEChallengeData2016/ inside it",
    inside=("", "ADEChallengeData2016"),
    splits={"train": "training", "val": "validation"},
    variants=[layouts.Split("images/{}", "annotations/{}")],
)

SPEC = spec_lib.DatasetSpec(
    name="ade20k",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.label_map({i + 1: i for i in range(len(CLASS_NAMES))}),
    void_ids=(0,),
    submission_ids=tuple(range(1, len(CLASS_NAMES) + 1)),
    split_sizes={"train": 20210, "val": 2000},
    extra_figures=("final_score",),
    find=_LAYOUT.find,
    read=pairs.read,
    description=__doc__,
    layouts=_LAYOUT.text,
)
