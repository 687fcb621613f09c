"""Cityscapes: 19 classes of street scenes, 2048x1024.

Reference: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene
Understanding", CVPR 2016.

Labels are read from the files of label ids, or from those of train ids where
only these are there. `test` has no public labels and is stored with all pixels
ignored. `train_extra` has coarse labels.
"""

import collections
import dataclasses
import pathlib

from ctxseg_jax import errors
from ctxseg_jax.data import classes
from ctxseg_jax.data import finding
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

# Images in each city: a split has no list, so this shows what is missing.
_CITIES = {
    "train": {
        "aachen": 174,
        "bochum": 96,
        "bremen": 316,
        "cologne": 154,
        "darmstadt": 85,
        "dusseldorf": 221,
        "erfurt": 109,
        "hamburg": 248,
        "hanover": 196,
        "jena": 119,
        "krefeld": 99,
        "monchengladbach": 94,
        "strasbourg": 365,
        "stuttgart": 196,
        "tubingen": 144,
        "ulm": 95,
        "weimar": 142,
        "zurich": 122,
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
    "test": {
        "berlin": 544,
        "bielefeld": 181,
        "bonn": 46,
        "leverkusen": 58,
        "mainz": 298,
        "munich": 398,
    },
}
_TRAIN_IDS_END = "_labelTrainIds"
_LAYOUTS = (
    "leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png with labels in "
    "gtFine/{train,val}/CITY/*_gtFine_labelIds.png or *_labelTrainIds.png, and "
    "optionally the same of train_extra with gtCoarse; in the folder itself or "
    "in cityscapes/ inside it"
)


def find(source: pathlib.Path, *, any_size: bool) -> finding.Pairs:
  """Finds the pairs of every split; see `DatasetSpec.find`."""
  root = layouts.find_root(
      source, ("", "cityscapes"), ("leftImg8bit",), _LAYOUTS
  )
  splits = {}
  for split in SPEC.split_sizes:
    kind = "gtCoarse" if split == "train_extra" else "gtFine"
    image_dir = root / "leftImg8bit" / split
    label_dir = root / kind / split if split != "test" else None
    there = all(f is None or f.is_dir() for f in (image_dir, label_dir))
    if there or not (any_size or split in SPEC.optional_splits):
      splits[split] = layouts.Split(
          image_dir,
          label_dir,
          image_end="_leftImg8bit",
          # Of two files for an image that of label ids counts.
          label_ends=(f"_{kind}_labelIds", f"_{kind}{_TRAIN_IDS_END}"),
          nested=True,
      )
  found = layouts.find_splits(splits, _LAYOUTS, any_size=any_size)
  for split, pairs_of in found.items() if not any_size else ():
    _check_cities(split, pairs_of, splits[split].images)
  return found


def read(spec: spec_lib.DatasetSpec, pair: finding.Pair) -> spec_lib.Example:
  """Reads a pair whose label is of label ids or of train ids."""
  if pair.label is not None and pair.label.stem.endswith(_TRAIN_IDS_END):
    spec = _TRAIN_ID_SPEC
  return pairs.read(spec, pair)


SPEC = spec_lib.DatasetSpec(
    name="cityscapes",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.label_map(
        {raw: train for train, raw in enumerate(LABEL_IDS)}, 255
    ),
    void_ids=tuple(sorted(set(range(NUM_LABEL_IDS)) - set(LABEL_IDS))),
    submission_ids=LABEL_IDS,
    split_sizes={"train": 2975, "val": 500, "test": 1525, "train_extra": 19998},
    optional_splits=("test", "train_extra"),
    find=find,
    read=read,
    description=__doc__,
    layouts=_LAYOUTS,
)
_TRAIN_ID_SPEC = dataclasses.replace(
    SPEC,
    label_map=spec_lib.identity_map(len(CLASS_NAMES)),
    void_ids=(255,),
)


def _check_cities(
    split: str, found: list[finding.Pair], folder: pathlib.Path
) -> None:
  """Names the first city that is incomplete."""
  counts = collections.Counter(pair.image.parent.name for pair in found)
  for city, size in _CITIES.get(split, {}).items():
    if counts[city] != size:
      raise errors.UserError(
          f"{folder}: found {len(found)} images of {split}, expected "
          f"{SPEC.split_sizes[split]}; {city} has {counts[city]} of {size}. "
          "Complete the folder, or pass --any_size to prepare what is there."
      )
