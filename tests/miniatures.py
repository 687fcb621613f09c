"""Miniatures of the datasets, in the layouts that users have.

`WRITERS[name](root)` writes a few small pairs of a dataset under `root`, which
is then a source for `packing.prepare(..., any_size=True)`. What a file holds
depends on its id alone: `photo` and `raw_label` return it.
"""

from collections.abc import Callable
from collections.abc import Sequence
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image
import scipy.io

SIZE = (50, 60)
# Nine, so that a batch of eight leaves one over.
TRAIN = tuple(f"2007_{i:06}" for i in range(9))
VAL = ("2008_000001", "2008_000002")
AUG = ("2009_000001", "2009_000003")  # Labelled by SBD alone.

ADE_IDS = range(151)
CAMVID_IDS = range(12)
CITYSCAPES_IDS = range(34)
CITYSCAPES_TRAIN_IDS = (*range(19), 255)
COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
COCO_IDS = (*(i for i in range(182) if i not in COCO_UNUSED), 255)
COCO_TRAIN_IDS = (*range(171), 255)
# The categories of COCO that are VOC's classes, in the order of VOC.
COCO_VOC = (
    *(5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7),
    72,
)
CONTEXT_IDS = range(60)
CONTEXT_RAW_IDS = range(460)
VOC_IDS = (*range(21), 255)
SBD_IDS = range(21)


def photo(name: str, size: tuple[int, int] = SIZE) -> Image.Image:
  """Returns the image of an id."""
  rng = np.random.default_rng(list(name.encode()))
  coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
  return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def raw_label(
    name: str, ids: Sequence[int], size: tuple[int, int] = SIZE
) -> np.ndarray:
  """Returns the label of an id, in which every raw id occurs."""
  rng = np.random.default_rng(list(name.encode()))
  raw = rng.permutation(np.resize(ids, size[0] * size[1])).reshape(size)
  return raw.astype(np.uint16 if max(ids) > 255 else np.uint8)


def write_ade20k(root: pathlib.Path, size: tuple[int, int] = SIZE) -> None:
  """Writes `ADEChallengeData2016`."""
  top = root / "ADEChallengeData2016"
  for folder, start, count in (
      ("training", "ADE_train_", 9),
      ("validation", "ADE_val_", 2),
  ):
    for i in range(1, count + 1):
      name = f"{start}{i:08}"
      _save(photo(name, size), top / f"images/{folder}/{name}.jpg")
      raw = raw_label(name, ADE_IDS, size)
      _save(raw, top / f"annotations/{folder}/{name}.png")


def write_camvid(
    root: pathlib.Path,
    size: tuple[int, int] = SIZE,
    *,
    repacked: bool = False,
    lists: bool = False,
) -> None:
  """Writes CamVid as the SegNet tutorial has it, or as JPEG, `repacked`."""
  for split, count in (("train", 9), ("val", 2), ("test", 3)):
    images, labels, lines = f"{split}", f"{split}annot", ""
    if repacked:
      images, labels = f"images/{split}", f"labels/{split}"
    for i in range(count):
      name = f"{split}{i}"
      end = "jpg" if repacked else "png"
      _save(photo(name, size), root / f"{images}/{name}.{end}")
      raw = raw_label(name, CAMVID_IDS, size)
      _save(raw, root / f"{labels}/{name}.png")
      paths = (f"/SegNet/CamVid/{x}/{name}.png" for x in (images, labels))
      lines += f"{name if repacked else ' '.join(paths)}\n"
    if lists:
      path = root / "splits" if repacked else root
      path.mkdir(exist_ok=True)
      (path / f"{split}.txt").write_text(lines)


def write_cityscapes(
    root: pathlib.Path,
    size: tuple[int, int] = SIZE,
    *,
    train_ids: bool = False,
) -> None:
  """Writes Cityscapes; `train_ids` writes no label ids, but train ids."""
  ids = CITYSCAPES_TRAIN_IDS if train_ids else CITYSCAPES_IDS
  end = "labelTrainIds" if train_ids else "labelIds"
  for split, city, count in (
      ("train", "aachen", 5),
      ("train", "ulm", 4),
      ("val", "lindau", 2),
      ("test", "bonn", 2),
      ("train_extra", "erlangen", 1),
  ):
    kind = "gtCoarse" if split == "train_extra" else "gtFine"
    for i in range(count):
      name = f"{city}_{i:06}_000019"
      place = f"{split}/{city}/{name}"
      _save(photo(name, size), root / f"leftImg8bit/{place}_leftImg8bit.png")
      if split != "test":
        raw = raw_label(name, ids, size)
        _save(raw, root / f"{kind}/{place}_{kind}_{end}.png")


def write_coco_stuff164k(
    root: pathlib.Path,
    size: tuple[int, int] = SIZE,
    *,
    train_ids: bool = False,
) -> None:
  """Writes COCO-Stuff; `train_ids` writes labels as converted."""
  top = root / "coco_stuff164k"
  ids = COCO_TRAIN_IDS if train_ids else COCO_IDS
  end = "_labelTrainIds" if train_ids else ""
  for split, first, count in (("train2017", 9, 9), ("val2017", 139, 2)):
    for i in range(first, first + count):
      name = f"{i:012}"
      _save(photo(name, size), top / f"images/{split}/{name}.jpg")
      raw = raw_label(name, ids, size)
      _save(raw, top / f"annotations/{split}/{name}{end}.png")


def write_coco_voc21(
    root: pathlib.Path,
    size: tuple[int, int] = SIZE,
    *,
    nested: bool = False,
) -> None:
  """Writes COCO's images and objects; `nested` puts images into `images`.

  Each image holds all of VOC's classes, as cells of a grid of 5 columns, and
  an object of another category over all. The last of a split has no objects,
  so that it is not chosen to train on.
  """
  top = root / "coco"
  folder = top / "images" if nested else top
  height, width = size[0] // 4, size[1] // 5
  for split, first, last in (("train", 9, 18), ("val", 139, 141)):
    content = {"images": [], "annotations": []}
    for i in range(first, last + 1):
      name = f"{i:012}.jpg"
      _save(photo(name[:-4], size), folder / f"{split}2017" / name)
      entry = {"id": i, "file_name": name, "height": size[0], "width": size[1]}
      content["images"].append(entry)
      objects = [(90, 0, 0, size[1], size[0])]
      for k, category in enumerate(COCO_VOC):
        x, y = k % 5 * width, k // 5 * height
        objects.append((category, x, y, x + width, y + height))
      for category, x, y, right, bottom in objects if i < last else ():
        content["annotations"].append(
            {
                "image_id": i,
                "category_id": category,
                "segmentation": [[x, y, right, y, right, bottom, x, bottom]],
                "area": (right - x) * (bottom - y),
            }
        )
    path = top / f"annotations/instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_pcontext(
    root: pathlib.Path,
    size: tuple[int, int] = SIZE,
    *,
    labels: str = "converted",
) -> None:
  """Writes PASCAL-Context, its labels `converted`, or as released.

  These are raw ids in `mat` or in `png` files.
  """
  top = root / "VOCdevkit" / "VOC2010"
  lists, ids = "SegmentationContext", CONTEXT_IDS
  folder, end = "SegmentationClassContext", "png"
  if labels != "converted":
    lists, ids = "Main", CONTEXT_RAW_IDS
    folder, end = "trainval", labels
  for split, names in (("train", TRAIN), ("val", VAL)):
    _save_list(names, top / f"ImageSets/{lists}/{split}.txt")
    for name in names:
      _save(photo(name, size), top / f"JPEGImages/{name}.jpg")
      raw = raw_label(name, ids, size)
      _save(
          {"LabelMap": raw} if end == "mat" else raw,
          top / f"{folder}/{name}.{end}",
      )


def write_voc2012(
    root: pathlib.Path,
    size: tuple[int, int] = SIZE,
    *,
    sbd: str = "converted",
) -> None:
  """Writes VOC 2012.

  Args:
    root: Where `VOCdevkit/VOC2012` goes.
    size: Of the images.
    sbd: SBD's labels `converted`, as released in `mat` files, or `none`.
  """
  top = root / "VOCdevkit" / "VOC2012"
  lists = top / "ImageSets" / "Segmentation"
  for name in (*TRAIN, *VAL, *AUG):
    _save(photo(name, size), top / "JPEGImages" / f"{name}.jpg")
  for split, names in (("train", TRAIN), ("val", VAL)):
    _save_list(names, lists / f"{split}.txt")
    for name in names:
      label = Image.fromarray(raw_label(name, VOC_IDS, size), "P")
      # Like VOC's: the colours say nothing of the indices.
      label.putpalette(np.random.default_rng(0).bytes(768))
      _save(label, top / "SegmentationClass" / f"{name}.png")
  if sbd == "converted":
    _save_list((*AUG, *TRAIN), lists / "trainaug.txt")
  # SBD labels images of VOC's as well, and coarsely.
  for name in (*AUG, TRAIN[0], VAL[0]):
    raw = raw_label(f"sbd {name}", SBD_IDS, size)
    if sbd == "converted":
      _save(raw, top / f"SegmentationClassAug/{name}.png")
    elif sbd == "mat":
      content = {"Segmentation": raw, "CategoriesPresent": np.unique(raw)}
      path = root / f"VOCdevkit/VOCaug/dataset/cls/{name}.mat"
      _save({"GTcls": content}, path)


CUSTOM_CLASSES = {
    "sky": (70, 130, 180),
    "street lamp": (9, 9, 9),
    "car": (142, 0, 0),
}
CUSTOM_IDS = (0, 1, 2, 255)


def write_custom(
    root: pathlib.Path,
    size: tuple[int, int] = SIZE,
    *,
    colors: bool = False,
) -> None:
  """Writes a user's own data; `colors` writes RGB labels and their table."""
  root.mkdir(parents=True, exist_ok=True)
  lines = [*CUSTOM_CLASSES]
  if colors:
    named = CUSTOM_CLASSES | {"__ignore__": (0, 0, 0)}
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in named.items()]
  _save_list(lines, root / "classes.txt")
  table = np.zeros((256, 3), np.uint8)
  table[:3] = list(CUSTOM_CLASSES.values())
  for split, count in (("train", 9), ("val", 2)):
    for i in range(count):
      name = f"{split}{i}"
      _save(photo(name, size), root / "images" / split / f"{name}.jpg")
      raw = raw_label(name, CUSTOM_IDS, size)
      label = table[raw] if colors else raw
      _save(label, root / "labels" / split / f"{name}.png")


# By name in `DATASETS`; all that need a source are here.
WRITERS: dict[str, Callable[..., None]] = {
    "ade20k": write_ade20k,
    "camvid": write_camvid,
    "cityscapes": write_cityscapes,
    "coco_stuff164k": write_coco_stuff164k,
    "coco_voc21": write_coco_voc21,
    "pcontext59": write_pcontext,
    "pcontext60": write_pcontext,
    "voc2012": write_voc2012,
}


def _save(
    content: Image.Image | np.ndarray | dict[str, Any], path: pathlib.Path
) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(content, dict):
    scipy.io.savemat(path, content, do_compression=True)
    return
  if isinstance(content, np.ndarray):
    content = Image.fromarray(content)
  content.save(path)


def _save_list(lines: Sequence[str], path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(f"{line}\n" for line in lines))
