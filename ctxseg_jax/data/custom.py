"""A user's own dataset: images, labels and a file of classes, without code.

A folder holds `classes.txt` (see `data.classes`) and images with labels, in one
of two layouts. Either they are in two folders,

    images/train/a.jpg  images/val/b.jpg  labels/train/a.png  labels/val/b.png

an image and its label having the same name. Or lists say what there is: a line
of `train.txt`, `val.txt` or `test.txt` (also in `splits/`) is an image and its
label, as paths in the folder, or the name of an image in `images/`. Without
subfolders and lists all is one split, `train`, of which slices can be taken.

Labels hold ids in one 8-bit channel, gray or palette, with 255 for what is
ignored; or the colours of `classes.txt`, in RGB.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from typing import Any

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import images
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

NAME = "custom"
SPLITS = ("train", "val", "test")
CLASSES_FILE = "classes.txt"

_IMAGE_DIRS = ("images", "img_dir")
_LABEL_DIRS = ("labels", "masks", "annotations", "ann_dir")
_LIST_DIRS = ("", "splits")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Images that would be overlooked otherwise.
_OTHER_SUFFIXES = (
    *(".bmp", ".gif", ".jp2", ".npy", ".pgm", ".ppm", ".tif", ".tiff"),
    *(".webp", ".heic"),
)
# Names of splits elsewhere, which would pass for any other subfolder.
_MISNAMED = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}
_MEAN_SAMPLE = 32  # Images that the mean is taken of.
LAYOUTS = (
    "classes.txt and images/{train,val}/*.jpg with labels of the same names in "
    "labels/{train,val}/*.png (or masks/), or train.txt and val.txt with an "
    "image and its label per line"
)
_REMEDY = (
    "Convert masks to class ids, or write the colour of each class beside its "
    f"name in {CLASSES_FILE} if they are RGB."
)


@dataclasses.dataclass(frozen=True)
class Found:
  """What two folders or lists hold.

  Attributes:
    pairs: By split, in order.
    faults: What is wrong, a line each; the pairs are those without a fault.
  """

  pairs: Mapping[str, list[pairs.Pair]]
  faults: list[str]


def from_folder(root: str | os.PathLike[str]) -> spec_lib.DatasetSpec:
  """Returns the specification of a folder.

  Its name tells the content: that of the folder and a digest of names, sizes
  and times of all files. So what was prepared of it is never taken for what it
  has become.

  Args:
    root: The folder.

  Raises:
    UserError: It is not of a known layout, or a file of it is faulty.
  """
  root = _check_root(root)
  classes = classes_lib.read(root / CLASSES_FILE)
  found = _require_sound(find(root))
  name = re.sub(r"\W+", "_", root.resolve().name, flags=re.ASCII).lower()
  return make_spec(
      classes,
      name=f"{name.strip('_') or NAME}_{_digest(root, found)}",
      split_sizes={split: len(items) for split, items in found.items()},
      mean=_mean(next(iter(found.values()))),
      root=root,
  )


def make_spec(
    classes: classes_lib.Classes,
    *,
    name: str = NAME,
    split_sizes: Mapping[str, int] | None = None,
    mean: tuple[float, float, float] = spec_lib.IMAGENET_MEAN,
    root: str | os.PathLike[str] = "",
) -> spec_lib.DatasetSpec:
  """Returns the specification of a dataset of given classes.

  Args:
    classes: Of the labels.
    name: Of the dataset, a valid name of a folder.
    split_sizes: Number of pairs by split.
    mean: RGB, of the images.
    root: Where the pairs are, should they be asked for.
  """
  num_classes = len(classes.names)
  return spec_lib.DatasetSpec(
      name=name,
      class_names=classes.names,
      palette=classes.palette,
      label_map=spec_lib.label_map(
          {i: i for i in range(num_classes)}, classes_lib.IGNORE_LABEL
      ),
      void_ids=(classes_lib.IGNORE_LABEL,),
      mean=mean,
      split_sizes=split_sizes or {},
      find=functools.partial(_find_again, root, name),
      read=functools.partial(
          pairs.read, decode=functools.partial(decode, colors=classes.colors)
      ),
      needs_source=False,  # It has one already.
      description=f"Images and labels of {root}." if root else "",
      layouts=LAYOUTS,
      remedy=(
          f"Write the labels anew with the ids of {CLASSES_FILE}, which count "
          "from 0, or complete it."
      ),
  )


def to_record(spec: spec_lib.DatasetSpec) -> dict[str, Any]:
  """Returns what `from_record` makes the specification of, as JSON holds it."""
  colors = spec.read.keywords["decode"].keywords["colors"]
  return {
      "name": spec.name,
      "class_names": list(spec.class_names),
      "palette": [list(color) for color in spec.palette],
      "colors": [[*color, index] for color, index in colors.items()],
      "mean": list(spec.mean),
      "split_sizes": dict(spec.split_sizes),
  }


def from_record(
    record: Mapping[str, Any], root: str | os.PathLike[str]
) -> spec_lib.DatasetSpec:
  """Returns a specification without its folder, from what was kept of it.

  Args:
    record: What `to_record` returned.
    root: The folder, which is looked at only if the dataset is to be prepared.

  Raises:
    UserError: The record was changed to something that is none.
  """
  try:
    return make_spec(
        classes_lib.Classes(
            names=tuple(record["class_names"]),
            palette=tuple(map(tuple, record["palette"])),
            colors={(r, g, b): i for r, g, b, i in record["colors"]},
        ),
        name=record["name"],
        split_sizes=dict(record["split_sizes"]),
        mean=tuple(record["mean"]),
        root=root,
    )
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UserError(
        f"config: data.spec: {error!r}; expected what train.py wrote there. "
        "Restore config.json, or train again."
    ) from error


def decode(
    path: pathlib.Path, *, colors: Mapping[classes_lib.Color, int]
) -> np.ndarray:
  """Returns the ids of a label, uint8 [H, W]."""
  return images.decode_label(path, colors=colors, remedy=_REMEDY)


def find(root: pathlib.Path) -> Found:
  """Finds the pairs of a folder, without opening an image.

  Raises:
    UserError: The folder is of no known layout.
  """
  lists = {}
  for split in SPLITS:
    for folder in _LIST_DIRS:
      if (root / folder / f"{split}.txt").is_file():
        lists.setdefault(split, root / folder / f"{split}.txt")
  image_dir = _first_dir(root, _IMAGE_DIRS)
  label_dir = _first_dir(root, _LABEL_DIRS)
  if lists:
    return _find_listed(root, lists, image_dir, label_dir)
  if image_dir is None or label_dir is None:
    raise pairs.unknown_layout(root, LAYOUTS)
  return find_in_folders(image_dir, label_dir)


def find_in_folders(image_dir: pathlib.Path, label_dir: pathlib.Path) -> Found:
  """Finds the pairs of two folders, by their names.

  Args:
    image_dir: Images, in subfolders `train`, `val` and `test` if there are any
      of these, and in any further ones.
    label_dir: Labels, in the same subfolders.

  Raises:
    UserError: A folder is not there or cannot be read.
  """
  for folder in (image_dir, label_dir):
    if not folder.is_dir():
      raise errors.UserError(
          f"{folder}: no such folder; expected a folder of files. Check the "
          "path."
      )
  splits = [s for s in SPLITS if (image_dir / s).is_dir()]
  faults = [
      f"{image_dir / name}: looks like a split; expected it to be called "
      f"{right}. Rename it, and that of the labels."
      for name, right in _MISNAMED.items()
      if (image_dir / name).is_dir()
  ]
  if splits:
    # A file beside the folders of splits is in no split, which is no purpose.
    for folder in (image_dir, label_dir):
      for path in sorted(folder.iterdir()):
        if path.name not in splits and not _is_foreign(path):
          faults.append(
              f"{path}: in no split; expected only {', '.join(splits)} here. "
              "Move it into one of them, or away."
          )
  found = {}
  for split in splits or [SPLITS[0]]:
    images_of = image_dir / split if splits else image_dir
    labels_of = label_dir / split if splits else label_dir
    if not labels_of.is_dir():
      faults.append(
          f"{labels_of}: no such folder; expected the labels of {images_of}. "
          "Add the folder."
      )
      continue
    found[split], of_split = _match(images_of, labels_of)
    faults += of_split
  faults += _shared(found)
  return Found(found, faults)


def _match(
    image_dir: pathlib.Path, label_dir: pathlib.Path
) -> tuple[list[pairs.Pair], list[str]]:
  by_name, faults = _files(image_dir)
  labels, of_labels = _files(label_dir)
  faults += of_labels
  for name in sorted(set(by_name) - set(labels)):
    faults.append(
        f"{by_name[name]}: label is missing; expected {label_dir / name}.png. "
        "Add the label or remove the image."
    )
  for name in sorted(set(labels) - set(by_name)):
    faults.append(
        f"{labels[name]}: label without an image; expected {name}.png or .jpg "
        f"in {image_dir}. Add the image or remove the label."
    )
  if not by_name and not faults:
    faults.append(
        f"{image_dir}: no images; expected PNG or JPEG files. Add them."
    )
  both = sorted(set(by_name) & set(labels))
  return [
      pairs.Pair(name, by_name[name], labels[name]) for name in both
  ], faults


def _files(
    folder: pathlib.Path,
) -> tuple[dict[str, pathlib.Path], list[str]]:
  """Returns the images below a folder by path without suffix, and faults."""
  files, faults = {}, []
  for path in sorted(folder.rglob("*")):
    if path.is_dir() or _is_foreign(path):
      continue
    place = path.relative_to(folder)
    if path.suffix.lower() not in _IMAGE_SUFFIXES:
      faults.append(
          f"{path}: found a file of type {path.suffix}; expected PNG or JPEG. "
          "Convert the file, labels to PNG."
      )
      continue
    name = place.with_suffix("").as_posix()
    if name in files:
      faults.append(
          f"{path}: id {name} occurs twice, also as {files[name].name}; "
          "expected one file per id. Remove one."
      )
      continue
    files[name] = path
  return files, faults


def _is_foreign(path: pathlib.Path) -> bool:
  """Whether a file is nothing of ours: notes, metadata, hidden files."""
  if path.name.startswith("."):
    return True
  suffix = path.suffix.lower()
  known = (*_IMAGE_SUFFIXES, *_OTHER_SUFFIXES)
  return not path.is_dir() and suffix not in known


def _shared(found: Mapping[str, list[pairs.Pair]]) -> list[str]:
  """Tells of files that are in two splits under the same name."""
  first, faults = {}, []
  for split, items in found.items():
    for pair in items:
      other = first.setdefault(pair.name, (split, pair))
      # Names may start anew in every split, so they alone say nothing.
      if other[0] != split and _same_content(other[1].image, pair.image):
        faults.append(
            f"{pair.image}: the same file is in {other[0]} and in {split}; "
            "expected each image in one split. Remove it from one, or results "
            "on it mean nothing."
        )
  return faults


def _same_content(a: pathlib.Path, b: pathlib.Path) -> bool:
  try:
    return a.stat().st_size == b.stat().st_size and (
        a.read_bytes() == b.read_bytes()
    )
  except OSError:
    return False  # Reading the pair will say so.


def _find_listed(
    root: pathlib.Path,
    lists: Mapping[str, pathlib.Path],
    image_dir: pathlib.Path | None,
    label_dir: pathlib.Path | None,
) -> Found:
  by_name = labels = None
  found, faults, first = {}, [], {}
  for split, list_file in lists.items():
    found[split] = []
    for place, fields in _read_list(list_file, faults):
      if len(fields) == 2:
        paths = [_resolve(root, field) for field in fields]
        name = pathlib.PurePosixPath(fields[0]).with_suffix("").as_posix()
      elif image_dir is None or label_dir is None:
        faults.append(
            f"{place}: found {fields[0]!r} alone; expected an image and its "
            f"label, or the folders images/ and labels/ in {root}. Complete "
            "the line or the folders."
        )
        continue
      else:
        if by_name is None:
          (by_name, odd), (labels, odd_labels) = map(
              _files, (image_dir, label_dir)
          )
          faults += odd + odd_labels
        name = _find_name(fields[0], split, {**by_name, **labels})
        paths = [by_name.get(name), labels.get(name)]
      lost = [i for i in range(2) if paths[i] is None or not paths[i].is_file()]
      if lost:
        what = ("image", "label")[lost[0]]
        faults.append(
            f"{place}: {what} of {' '.join(fields)} is missing; expected a "
            f"file inside {root}. Add the file or remove the line."
        )
        continue
      if paths[0] in first:
        other, other_split = first[paths[0]]
        where = f"in {split} and " * (other_split != split) + "first"
        faults.append(
            f"{place}: {fields[0]} occurs twice, {where} in {other}; expected "
            "each image once, in one split. Remove one line."
        )
        continue
      first[paths[0]] = place, split
      found[split].append(pairs.Pair(name, *paths))
    if not found[split] and not faults:
      faults.append(
          f"{list_file}: no lines; expected an image and its label, or a name,"
          " per line. Fill the list or remove it."
      )
  return Found(found, faults)


def _read_list(
    list_file: pathlib.Path, faults: list[str]
) -> Iterable[tuple[str, list[str]]]:
  """Yields `file:line` and fields of the sound lines; adds to the faults."""
  try:
    text = list_file.read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    faults.append(
        f"{list_file}: cannot be read as a text file ({error}); expected an "
        "image and its label per line. Replace or remove the list."
    )
    return
  for number, line in enumerate(text.splitlines(), start=1):
    # Names with blanks in them take a tab.
    fields = line.split("\t") if "\t" in line.strip() else line.split()
    fields = [field.strip().replace("\\", "/") for field in fields]
    if not fields:
      continue
    if len(fields) > 2 or not all(f and f.isprintable() for f in fields):
      faults.append(
          f"{list_file}:{number}: found {line.strip()!r}; expected an image "
          "and its label with a blank or a tab between, or a name. Mend the "
          "line."
      )
      continue
    odd = [f for f in fields if f.startswith("/") or ".." in f.split("/")]
    if odd:
      faults.append(
          f"{list_file}:{number}: {odd[0]} leads out of the folder; expected a "
          f"path inside {list_file.parent}. Move the file there."
      )
      continue
    yield f"{list_file}:{number}", fields


def _find_name(
    field: str, split: str, by_name: Mapping[str, pathlib.Path]
) -> str:
  """Returns the id that a line names: with or without folder and suffix."""
  stem = field
  for suffix in _IMAGE_SUFFIXES:  # Not Path.stem: ids may hold dots.
    if field.lower().endswith(suffix):
      stem = field[: -len(suffix)]
  for name in (stem, f"{split}/{stem}", *_tails(stem)):
    if name in by_name:
      return name
  return stem


def _tails(path: str) -> Iterable[str]:
  """Yields the path without its first folders: lists may start anywhere."""
  while "/" in path:
    path = path.partition("/")[2]
    yield path


def _resolve(root: pathlib.Path, field: str) -> pathlib.Path | None:
  """Returns the file of a list; None if links lead it out of the folder."""
  path = root / field
  # What lies in the folder itself may be a link: the user put it there.
  homes = [root, *(child for child in root.iterdir() if child.is_dir())]
  real = path.resolve()
  if any(real.is_relative_to(home.resolve()) for home in homes):
    return path
  return None


def _find_again(
    root: str | os.PathLike[str],
    name: str,
    source: None,
    *,
    any_size: bool,
) -> Mapping[str, list[pairs.Pair]]:
  """The `find` of a specification: its folder has to be what it was."""
  del source, any_size
  root = _check_root(root)
  found = _require_sound(find(root))
  if not name.endswith(_digest(root, found)):
    raise errors.UserError(
        f"{root}: files have changed since {name} was made of it; expected the "
        "same. Train in another --workdir to use them as they are."
    )
  return found


def _check_root(root: str | os.PathLike[str]) -> pathlib.Path:
  if not str(root):
    raise errors.UserError(
        "config: data.root: missing; expected your folder, with "
        f"{LAYOUTS}. Pass --config.data.root=DIR."
    )
  path = pathlib.Path(root).expanduser()
  if not path.is_dir():
    raise errors.UserError(
        f"{path}: no such folder; expected {LAYOUTS}. Check data.root."
    )
  return path


def _require_sound(found: Found) -> Mapping[str, list[pairs.Pair]]:
  if found.faults:
    others = len(found.faults) - 1
    more = f" (and {others} faults more)" if others else ""
    raise errors.UserError(found.faults[0] + more)
  return found.pairs


def _digest(root: pathlib.Path, found: Mapping[str, list[pairs.Pair]]) -> str:
  digest = hashlib.sha256((root / CLASSES_FILE).read_bytes())
  for split, items in found.items():
    for pair in items:
      for path in (pair.image, pair.label):
        stat = path.stat()
        line = f"{split} {path.relative_to(root)} {stat.st_size}"
        digest.update(f"{line} {stat.st_mtime_ns}\n".encode())
  return digest.hexdigest()[:10]


def _mean(items: list[pairs.Pair]) -> tuple[float, float, float]:
  """Returns the mean RGB of images spread over a split."""
  total = np.zeros(3)
  chosen = items[:: -(-len(items) // _MEAN_SAMPLE)]
  for pair in chosen:
    total += images.decode_image(pair.image).mean(axis=(0, 1))
  return tuple(np.round(total / len(chosen), 2).tolist())


def _first_dir(root: pathlib.Path, names: Iterable[str]) -> pathlib.Path | None:
  return next((root / n for n in names if (root / n).is_dir()), None)
