"""COCO 2017 with VOC's 21 classes, on which segmentation is pretrained.

References: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014;
the classes, the choice of images and the drawing are those of torchvision's
reference training. A pixel of two objects is ignored, one of none is
background. Of the training images those count whose objects of VOC's classes
cover more than 1,000 pixels; of the validation images all.

The objects are drawn from COCO's own annotations, or else labels are taken from
the maps of COCO-Stuff 164k, where no pixel is of two objects.
"""

import dataclasses
import json
import pathlib
from typing import Any
from typing import NamedTuple

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import finding
from ctxseg_jax.data import images
from ctxseg_jax.data import layouts
from ctxseg_jax.data import pairs
from ctxseg_jax.data import polygons
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.datasets import coco_stuff164k
from ctxseg_jax.data.datasets import voc2012

# COCO's category of each of VOC's classes, the background first.
CATEGORIES = (
    *(0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7),
    72,
)
NUM_IMAGES = {"train": 118287, "val": 5000}
MIN_PIXELS = 1000  # Of VOC's classes in an image to train on; more than this.

_IGNORE = 255
# What a file of annotations that is anything else can raise.
_ODD = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
_LAYOUTS = (
    "annotations/instances_{train,val}2017.json and {train,val}2017/*.jpg or "
    "images/{train,val}2017/*.jpg, in the folder itself or in coco/ inside it; "
    f"or {coco_stuff164k.LAYOUT.text}"
)


# Class, segmentation as in COCO's files, and area.
_Object = tuple[int, Any, float]


class Annotated(NamedTuple):
  """An image with the objects in it."""

  name: str
  image: pathlib.Path
  size: tuple[int, int]  # Height and width.
  objects: list[_Object]
  place: str  # Where it is annotated, for messages.


def find(
    source: pathlib.Path, *, any_size: bool
) -> dict[str, list[Annotated]] | dict[str, list[finding.Pair]]:
  """Finds the images of both splits; see `DatasetSpec.find`.

  Maps of COCO-Stuff are opened for it.
  """
  for root in (source, source / "coco"):
    annotations = {
        split: root / "annotations" / f"instances_{split}2017.json"
        for split in NUM_IMAGES
    }
    if any(path.is_file() for path in annotations.values()):
      polygons.require_library()
      return {
          split: _find_annotated(root, path, split, any_size)
          for split, path in annotations.items()
          if path.is_file() or not any_size
      }
  try:
    coco_stuff164k.LAYOUT.locate(source)
  except errors.UserError as error:
    raise layouts.unknown(source, _LAYOUTS) from error
  found = coco_stuff164k.LAYOUT.find(source, any_size=any_size)
  if not any_size:
    for split, items in found.items():
      _check_number(source, split, len(items))
  if "train" in found:
    found["train"] = [p for p in found["train"] if _num_objects(p) > MIN_PIXELS]
  return found


def read(
    spec: spec_lib.DatasetSpec, item: Annotated | finding.Pair
) -> spec_lib.Example:
  """Reads an image and draws its objects, or reads their map."""
  if isinstance(item, finding.Pair):
    return pairs.read(_stuff_spec(item), item)
  data = files.read_bytes(item.image, what="an image of COCO")
  size = images.verify_image(data, str(item.image))
  if size != item.size:
    raise errors.UserError(
        f"{item.image}: {size[0]}x{size[1]} (height x width); expected "
        f"{item.size[0]}x{item.size[1]}, of which {item.place} is. Replace the "
        "image by the one of COCO."
    )
  label = np.zeros(size, np.uint8)
  count = np.zeros(size, np.uint8)
  for index, segmentation, _ in item.objects:
    try:
      mask = polygons.object_mask(segmentation, *size)
    except ValueError as error:
      raise errors.UserError(
          f"{item.place}: {error}; expected a segmentation of COCO. Replace "
          "the file of annotations."
      ) from error
    label[mask] = index
    count += mask & (count < 2)
  label[count > 1] = _IGNORE
  return spec_lib.Example(item.name, data, label)


SPEC = spec_lib.DatasetSpec(
    name="coco_voc21",
    class_names=voc2012.CLASS_NAMES,
    palette=voc2012.PALETTE,
    label_map=spec_lib.identity_map(21),
    void_ids=(_IGNORE,),
    # How many images of train are chosen depends on the layout.
    split_sizes={"train": None, "val": NUM_IMAGES["val"]},
    find=find,
    read=read,
    description=__doc__,
    layouts=_LAYOUTS,
)
# COCO-Stuff counts categories from 0. All but VOC's are background, and so is
# what is unlabelled.
_RELEASED_SPEC = dataclasses.replace(
    SPEC,
    label_map=spec_lib.label_map(
        {raw: 0 for raw in (*range(coco_stuff164k.NUM_RAW), _IGNORE)}
        | {c - 1: i for i, c in enumerate(CATEGORIES) if i}
        | {raw: _IGNORE for raw in coco_stuff164k.UNUSED_IDS}
    ),
    void_ids=(),
)
_TRAIN_ID_SPEC = dataclasses.replace(
    _RELEASED_SPEC,
    label_map=spec_lib.label_map(
        {int(train): int(_RELEASED_SPEC.label_map[raw])
         for raw, train in enumerate(coco_stuff164k.SPEC.label_map)
         if train != _IGNORE}
        | {_IGNORE: 0}
    ),
)  # fmt: skip


def _stuff_spec(pair: finding.Pair) -> spec_lib.DatasetSpec:
  if pairs.holds_train_ids(pair.label):
    return _TRAIN_ID_SPEC
  return _RELEASED_SPEC


def _num_objects(pair: finding.Pair) -> int:
  """Returns how many pixels of a map of COCO-Stuff are of VOC's classes."""
  raw = images.decode_label(pair.label)
  table = _stuff_spec(pair).label_map
  return int(((table[raw] > 0) & (table[raw] != _IGNORE)).sum())


def _find_annotated(
    root: pathlib.Path, path: pathlib.Path, split: str, any_size: bool
) -> list[Annotated]:
  entries = _read_annotations(path)
  if not any_size:
    _check_number(path, split, len(entries))
  folders = [root / f"{split}2017", root / "images" / f"{split}2017"]
  folder = next((f for f in folders if f.is_dir()), None)
  if folder is None:
    raise errors.UserError(
        f"{folders[0]}: no such folder; expected {_LAYOUTS}. Complete the "
        "source."
    )
  there = {file.name for file in folder.iterdir()}
  found, lost = [], []
  for number, (name, size, objects) in entries.items():
    if split == "train" and sum(area for *_, area in objects) <= MIN_PIXELS:
      continue
    image = folder / name
    if name in there:
      place = f"{path}, image {number}"
      found.append(Annotated(image.stem, image, size, objects, place))
    else:
      lost.append(image)
  if lost and not (any_size and found):
    raise errors.UserError(
        f"{lost[0]}: image is missing ({len(lost)} of "
        f"{len(lost) + len(found)} are); expected it, for {path} names it. Add "
        "the files, or pass --any_size to leave them out."
    )
  return found


def _read_annotations(
    path: pathlib.Path,
) -> dict[int, tuple[str, tuple[int, int], list[_Object]]]:
  """Returns file name, size and objects of each image by its number."""
  classes = {category: i for i, category in enumerate(CATEGORIES) if i}
  try:
    content = json.loads(files.read_bytes(path, what="COCO's annotations"))
    names, entries = [], {}
    for image in content["images"]:
      names.append(str(image["file_name"]))
      size = (int(image["height"]), int(image["width"]))
      entries[int(image["id"])] = (names[-1], size, [])
    for a in content["annotations"]:
      index = classes.get(a["category_id"])
      if index is not None:
        item = (index, a["segmentation"], float(a["area"]))
        entries[a["image_id"]][-1].append(item)
  except _ODD as error:
    reason = " ".join(f"{type(error).__name__} {error}".split())[:100]
    raise errors.UserError(
        f"{path}: cannot be read ({reason}); expected COCO's annotations of "
        "objects. Replace the file."
    ) from error
  # A path would lead out of the folder of images, to anywhere.
  odd = [n for n in names if "/" in n or "\\" in n or n.startswith(".")]
  if odd or len(set(names)) < len(names) or len(entries) < len(names):
    what = f"the name {odd[0]!r}" if odd else "an image twice"
    raise errors.UserError(
        f"{path}: found {what}; expected the name of a file, and each once. "
        "Replace the file."
    )
  return entries


def _check_number(path: pathlib.Path, split: str, number: int) -> None:
  if number != NUM_IMAGES[split]:
    raise errors.UserError(
        f"{path}: found {number} images of {split}, expected "
        f"{NUM_IMAGES[split]}. Complete the source, or pass --any_size to "
        "prepare what is there."
    )
