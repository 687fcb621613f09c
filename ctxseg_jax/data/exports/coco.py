"""COCO's JSON: objects as polygons or run lengths, or panoptic segments.

    annotations/instances_train.json     images/ or images/train/ or train/
    train/_annotations.coco.json         images beside it (Roboflow)
    result.json                          images/ (Label Studio)
    annotations/panoptic_train.json      panoptic_train/ with PNGs there, too

Reference: https://cocodataset.org/#format-data. Categories are classes in the
order of their numbers. Of objects that overlap the smaller one is on top; what
no object covers is the class `background`, which is added as the first. What no
panoptic segment covers is ignored.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import finding
from ctxseg_jax.data import images as images_lib
from ctxseg_jax.data import polygons
from ctxseg_jax.data.exports import contents

_WHAT = "COCO's annotations, with images, annotations and categories"
_KEYS = ("images", "annotations", "categories")
_BACKGROUND = "background"
# Files of COCO that hold the same images in other ways.
_OTHERS = ("captions_", "person_keypoints_", "image_info_")


@dataclasses.dataclass(frozen=True)
class _Source:
  """The annotations of a split, and what the split is called there."""

  path: pathlib.Path
  subset: str
  images: list[Mapping[str, Any]]
  annotations: list[Mapping[str, Any]]
  categories: list[Mapping[str, Any]]

  @property
  def is_panoptic(self) -> bool:
    return any("segments_info" in a for a in self.annotations)

  @property
  def names(self) -> dict[int, str]:
    """Names of categories by number, in its order."""
    return dict(sorted((int(c["id"]), str(c["name"])) for c in self.categories))


def read(root: pathlib.Path) -> contents.Contents | None:
  """Reads an export; see `exports`."""
  sources: dict[str, _Source] = {}
  for path in _candidates(root):
    content = contents.read_json(path, _WHAT)
    if not isinstance(content, dict) or not {*_KEYS} <= content.keys():
      continue
    split, subset = _split_of(root, path)
    if split in sources:
      raise errors.UserError(
          f"{path}: annotations of {split}, as are {sources[split].path}; "
          "expected one file per split. Move one away, or rename it."
      )
    sources[split] = _Source(path, subset, *(content[key] for key in _KEYS))
  if not sources:
    return None
  names, notes = {}, []
  for source in sources.values():
    with contents.reading(source.path, _WHAT):
      names |= dict.fromkeys(_class_names(source, notes))
  if not all(source.is_panoptic for source in sources.values()):
    names = dict.fromkeys([_BACKGROUND, *names])
  classes, ids, of_choice = contents.choose(root, names)
  found, faults = {}, []
  for split, source in sources.items():
    with contents.reading(source.path, _WHAT):
      find = _panoptic if source.is_panoptic else _instances
      found[split] = list(_pairs(source, root, find(source, root, ids), faults))
      bare = {i["id"] for i in source.images}
      bare -= {a["image_id"] for a in source.annotations}
    if bare:
      notes.append(
          f"{source.path}: {len(bare)} images have no object; all of their "
          f"pixels are {_BACKGROUND}."
      )
  markers = [source.path for source in sources.values()]
  shown = ", ".join(str(path.relative_to(root)) for path in markers)
  tool = f"{root}: found a COCO export ({shown})."
  return contents.Contents(
      classes, found, faults, [tool, *notes, *of_choice], markers
  )


def _candidates(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the JSON files that may be COCO's."""
  for folder in ("", "annotations", *contents.split_folders(root)):
    for path in sorted((root / folder).glob("*.json")):
      if not path.name.startswith((".", *_OTHERS)):
        yield path


def _split_of(root: pathlib.Path, path: pathlib.Path) -> tuple[str, str]:
  """Returns the split of a file of annotations, and what it is called there."""
  words = re.split(r"[_.\-]", path.stem)
  if path.parent != root:
    words.append(path.parent.name)
  for word in words:
    if contents.split_of(word):
      return contents.split_of(word), word
  return "train", ""


def _class_names(source: _Source, notes: list[str]) -> list[str]:
  """Returns the names of a file that are classes."""
  names = source.names
  used = {
      part["category_id"]
      for annotation in source.annotations
      for part in annotation.get("segments_info", [annotation])
  }
  above = {category.get("supercategory") for category in source.categories}
  for category in source.categories:
    # Roboflow lists the project itself, above all others.
    is_above = category.get("supercategory") == "none"
    if is_above and category["name"] in above and category["id"] not in used:
      name = names.pop(category["id"])
      notes.append(f"{source.path}: {name!r} is above the others and no class.")
  return [*names.values()]


# By number of the image: the file of the label and how it is decoded.
_Labels = Mapping[int, tuple[pathlib.Path, contents.Decode]]


def _pairs(
    source: _Source, root: pathlib.Path, labels: _Labels, faults: list[str]
) -> Iterator[contents.Pair]:
  """Yields the pairs of a file; adds faults to the list."""
  images = root / "images"
  folders = [images / source.subset, root / source.subset, images]
  if source.path.parent.name != "annotations":
    folders.append(source.path.parent)
  folder = next((f for f in folders if os.path.isdir(f)), folders[0])
  images = finding.list_folder(folder, with_subfolder=True)
  seen = set()
  for image in source.images:
    try:
      name, path = _look_up(source, images, image["file_name"])
      if name in seen:
        raise errors.UserError(
            f"{source.path}: image {name} occurs twice; expected each once. "
            "Export it again."
        )
      seen.add(name)
      if image["id"] not in labels:
        raise errors.UserError(
            f"{path}: no annotation in {source.path}; expected one. Add it, or "
            "remove the image from that file."
        )
      yield contents.Pair(name, path, *labels[image["id"]])
    except errors.UserError as fault:
      faults.append(str(fault))


def _look_up(
    source: _Source, folder: finding.Folder, field: str
) -> tuple[str, pathlib.Path]:
  """Returns the id and the file that a name in the annotations means."""
  name = field.replace("\\", "/")
  name = finding.name_of_field(name, (folder,), source.subset)
  if name in folder.faults:
    raise errors.UserError(folder.faults[name])
  if name not in folder.files:
    raise errors.UserError(
        f"{source.path}: {field!r} is not in {folder.path}; expected every file"
        " that is named there. Export it again with the images, or add them."
    )
  return name, folder.files[name]


def _instances(
    source: _Source, root: pathlib.Path, ids: Mapping[str, int]
) -> _Labels:
  del root
  if source.annotations and not any(
      a.get("segmentation") for a in source.annotations
  ):
    raise errors.UserError(
        f"{source.path}: found boxes alone; expected a segmentation of each "
        "object. Export it as COCO for segmentation, or draw polygons."
    )
  polygons.require_library()
  names, objects = source.names, {image["id"]: [] for image in source.images}
  for a in source.annotations:
    _, _, width, height = a.get("bbox") or (0, 0, 0, 0)
    area = float(a.get("area") or width * height)
    item = (area, ids[names[a["category_id"]]], a.get("segmentation"))
    objects[a["image_id"]].append(item)
  return {
      image["id"]: (
          source.path,
          functools.partial(
              _draw,
              # Sorted here, since lists of coordinates are large to compare.
              objects=sorted(objects[image["id"]], key=lambda o: -o[0]),
              size=(int(image["height"]), int(image["width"])),
              background=ids[_BACKGROUND],
              place=f"{source.path}, {image['file_name']}",
          ),
      )
      for image in source.images
  }


def _draw(
    path: pathlib.Path,
    *,
    objects: Sequence[tuple[float, int, Any]],
    size: tuple[int, int],
    background: int,
    place: str,
) -> np.ndarray:
  """Returns the train ids of an image of objects, [H, W]."""
  del path  # It was read for all images at once.
  if min(size) < 1 or math.prod(size) > images_lib.MAX_PIXELS:
    raise errors.UserError(
        f"{place}: {size[0]}x{size[1]} (height x width); expected the size of "
        f"an image of at most {images_lib.MAX_PIXELS:,} pixels. Mend it."
    )
  label = np.full(size, background, np.uint8)
  for _, index, segmentation in objects:
    try:
      label[polygons.object_mask(segmentation, *size)] = index
    except ValueError as error:
      raise errors.UserError(
          f"{place}: {error}; expected polygons or run lengths of each object. "
          "Mend or remove the object in the tool, and export again."
      ) from error
  return label


def _panoptic(
    source: _Source, root: pathlib.Path, ids: Mapping[str, int]
) -> _Labels:
  stem = source.path.stem
  folders = [
      source.path.parent / stem,
      root / stem,
      root / "annotations" / stem,
  ]
  folder = next((f for f in folders if os.path.isdir(f)), folders[0])
  masks = finding.list_folder(folder, with_subfolder=True)
  names, labels = source.names, {}
  for a in source.annotations:
    table = {0: contents.IGNORE}
    for segment in a["segments_info"]:
      table[int(segment["id"])] = ids[names[segment["category_id"]]]
    _, path = _look_up(source, masks, a["file_name"])
    decode = functools.partial(_map_segments, table=table, where=source.path)
    labels[a["image_id"]] = (path, decode)
  return labels


def _map_segments(
    path: pathlib.Path, *, table: Mapping[int, int], where: pathlib.Path
) -> np.ndarray:
  """Returns the train ids of an image of panoptic segments, [H, W]."""
  rgb = images_lib.decode_image(path)
  numbers = rgb.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
  values, inverse = np.unique(numbers, return_inverse=True)
  for value in values.tolist():
    if value not in table:
      raise errors.UserError(
          f"{path}: segment {value} is not in {where}; expected the PNG that "
          "was exported with it, R + 256 G + 65536 B being a segment's number. "
          "Export both again."
      )
  found = np.array([table[value] for value in values.tolist()], np.uint8)
  return found[inverse].reshape(numbers.shape)
