"""LabelMe's JSON files, each beside its image and of the same name.

    labels.txt          maybe: the names in order, __ignore__ first
    train/a.jpg         subfolders are splits where they are named after them
    train/a.json        shapes: label, shape_type and points (x, y), or a mask

Reference: https://github.com/wkentaro/labelme. As there, later shapes cover
earlier ones. What no shape covers is the class `_background_` or `background`.
"""

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import math
import pathlib
from typing import Any

import numpy as np
from PIL import Image
from PIL import ImageDraw

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import finding
from ctxseg_jax.data import images as images_lib
from ctxseg_jax.data.exports import contents

_WHAT = "a JSON file of LabelMe"
_BACKGROUNDS = ("_background_", "background")


def read(root: pathlib.Path) -> contents.Contents | None:
  """Reads a folder of annotations; see `exports`. All files are opened."""
  paths = [p for p in sorted(root.rglob("*.json")) if p.name[:1] != "."]
  if not _is_marked(paths):
    return None
  folders = contents.split_folders(root)
  names, by_split, faults = {}, {}, []
  for path in paths:
    place = path.relative_to(root)
    split = folders.get(place.parts[0], "") if folders else "train"
    try:
      content = contents.read_json(path, _WHAT)
      if not split or not _is_labelme(content):
        what = "in no split" if not split else "no annotation of LabelMe"
        raise errors.UserError(
            f"{path}: {what}; expected LabelMe's files alone, in "
            f"{', '.join(folders) or 'the folder'}. Move it away."
        )
      with contents.reading(path, _WHAT):
        names |= dict.fromkeys(str(s["label"]) for s in content["shapes"])
    except errors.UserError as fault:
      faults.append(str(fault))
    else:
      name = place.with_suffix("").as_posix()
      by_split.setdefault(split, {})[name] = path

  names = sorted(names.keys() - {classes_lib.IGNORE_NAME})
  label_list = root / "labels.txt"
  markers = [label_list] if label_list.is_file() else []
  if markers:
    lines = map(str.strip, files.read_text(label_list).splitlines())
    names = [line for line in lines if line and line != classes_lib.IGNORE_NAME]
  elif not {*names} & {*_BACKGROUNDS}:
    names.insert(0, _BACKGROUNDS[0])
  classes, ids, notes = contents.choose(root, names)
  ids[classes_lib.IGNORE_NAME] = contents.IGNORE
  background = next((ids[n] for n in _BACKGROUNDS if n in ids), contents.IGNORE)
  decode = functools.partial(_draw, ids=ids, background=background)

  images = finding.list_folder(root, with_subfolder=True)
  found = {}
  for split, of_split in by_split.items():
    labels = finding.Folder(root, of_split, {}, "")
    pairs, of_pairs = finding.match(images, labels, of_split)
    faults += of_pairs
    found[split] = contents.decoded(pairs, decode)
  left = images.files.keys() - {
      path.relative_to(root).with_suffix("").as_posix() for path in paths
  }
  if left:
    notes.append(
        f"{root}: {len(left)} images have no JSON, such as {min(left)}; they "
        "are left out."
    )
  notes.insert(0, f"{root}: found a LabelMe export (JSON beside images).")
  return contents.Contents(classes, found, faults, notes, markers)


def _is_marked(paths: Sequence[pathlib.Path]) -> bool:
  """Whether the first file beside an image that can be read is of LabelMe."""
  for path in filter(_has_image, paths):
    with contextlib.suppress(errors.UserError):
      return _is_labelme(contents.read_json(path, _WHAT))
  return False


def _has_image(path: pathlib.Path) -> bool:
  return any(
      path.with_suffix(change(suffix)).is_file()
      for suffix in finding.IMAGE_SUFFIXES
      for change in (str.lower, str.upper)
  )


def _is_labelme(content: Any) -> bool:
  return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def _draw(
    path: pathlib.Path, *, ids: Mapping[str, int], background: int
) -> np.ndarray:
  """Returns the train ids of a file, [H, W]."""
  content = contents.read_json(path, _WHAT)
  with contents.reading(path, _WHAT):
    size = (int(content["imageWidth"]), int(content["imageHeight"]))
    if min(size) < 1 or math.prod(size) > images_lib.MAX_PIXELS:
      raise ValueError(f"an image of {size[0]}x{size[1]}")
    label = Image.new("L", size, background)
    for number, shape in enumerate(content["shapes"], start=1):
      name = str(shape["label"])
      if name not in ids:
        raise errors.UserError(
            f"{path}: shape {number} has the label {name!r}; expected one of "
            f"{', '.join(ids)[:200]}. Change it in LabelMe or complete "
            "labels.txt."
        )
      _draw_shape(label, shape, ids[name], f"{path}: shape {number}")
  return np.array(label)


def _draw_shape(
    label: Image.Image, shape: Mapping[str, Any], value: int, place: str
) -> None:
  draw = ImageDraw.Draw(label)
  kind = shape.get("shape_type") or "polygon"  # Old files have none.
  points = [(float(x), float(y)) for x, y in shape["points"]]
  if not all(math.isfinite(v) for point in points for v in point):
    raise ValueError("points that are no numbers")
  if kind == "polygon" and len(points) > 2:
    draw.polygon(points, fill=value, outline=value)
  elif kind == "rectangle" and len(points) == 2:
    (left, right), (top, bottom) = map(sorted, zip(*points, strict=True))
    draw.rectangle((left, top, right, bottom), fill=value, outline=value)
  elif kind == "circle" and len(points) == 2:
    (x, y), _ = points
    r = math.dist(*points)
    draw.ellipse((x - r, y - r, x + r, y + r), fill=value, outline=value)
  elif kind == "mask" and len(points) == 2:
    data = base64.b64decode(shape["mask"])
    mask = images_lib.decode_image(data, f"{place}, its mask")[..., 0] > 0
    corner = tuple(round(min(v)) for v in zip(*points, strict=True))
    label.paste(value, corner, Image.fromarray(mask))
  else:
    raise errors.UserError(
        f"{place} is a {kind} of {len(points)} points; expected a polygon of "
        "at least 3, a rectangle, a circle or a mask, which have an inside. "
        "Draw it as one of these, or remove it."
    )
