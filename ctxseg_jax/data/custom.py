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

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import hashlib
import os
import pathlib
import re
from typing import Any

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import finding
from ctxseg_jax.data import images
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

NAME = "custom"
SPLITS = ("train", "val", "test")
CLASSES_FILE = "classes.txt"

_IMAGE_DIRS = ("images", "img_dir")
_LABEL_DIRS = ("labels", "masks", "annotations", "ann_dir")
_LIST_DIRS = ("", "splits")
# Names of splits elsewhere, which would pass for any other subfolder.
_MISNAMED = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}
_MAX_DEPTH = 20  # Folders of a path in a list that are looked into.
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
  found = find(root).require_sound()
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
      read=read,
      needs_source=False,  # It has one already.
      description=f"Images and labels of {root}." if root else "",
      layouts=LAYOUTS,
      remedy=(
          f"Write the labels anew with the ids of {CLASSES_FILE}, which count "
          "from 0, or complete it."
      ),
      is_own=True,
      colors=classes.colors,
  )


def to_record(spec: spec_lib.DatasetSpec) -> dict[str, Any]:
  """Returns what `from_record` makes the specification of, as JSON holds it."""
  return {
      "name": spec.name,
      "class_names": list(spec.class_names),
      "palette": [list(color) for color in spec.palette],
      "colors": [[*color, index] for color, index in spec.colors.items()],
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


def read(spec: spec_lib.DatasetSpec, pair: finding.Pair) -> spec_lib.Example:
  """Reads a pair whose label is of ids or of the colours of the classes."""
  decode = functools.partial(
      images.decode_label, colors=spec.colors, remedy=_REMEDY
  )
  return pairs.read(spec, pair, decode=decode)


def find(root: pathlib.Path) -> finding.Found:
  """Finds the pairs of a folder, without opening an image.

  Raises:
    UserError: The folder is of no known layout, or cannot be read.
  """
  lists = {}
  for split in SPLITS:
    for folder in _LIST_DIRS:
      path = root / folder / f"{split}.txt"
      if os.path.lexists(path):
        lists.setdefault(split, path)
  image_dir = _first_dir(root, _IMAGE_DIRS)
  label_dir = _first_dir(root, _LABEL_DIRS)
  if lists:
    return _find_listed(root, lists, image_dir, label_dir)
  if image_dir is None or label_dir is None:
    raise finding.unknown_layout(root, LAYOUTS)
  return find_in_folders(image_dir, label_dir)


def find_in_folders(
    image_dir: pathlib.Path, label_dir: pathlib.Path
) -> finding.Found:
  """Finds the pairs of two folders, by their names.

  Args:
    image_dir: Images, in subfolders `train`, `val` and `test` if there are any
      of these, and in any further ones.
    label_dir: Labels, in the same subfolders.

  Raises:
    UserError: A folder is not there or cannot be read.
  """
  for folder in (image_dir, label_dir):
    if not os.path.isdir(folder):
      raise errors.UserError(
          f"{folder}: no such folder; expected a folder of files. Check the "
          "path."
      )
  splits = [s for s in SPLITS if os.path.isdir(image_dir / s)]
  faults = [
      f"{image_dir / name}: looks like a split; expected it to be called "
      f"{right}. Rename it, and that of the labels."
      for name, right in _MISNAMED.items()
      if os.path.isdir(image_dir / name)
  ]
  # A file beside the folders of splits is in no split, which is no purpose.
  for folder in (image_dir, label_dir) if splits else ():
    for name in finding.names_in(folder):
      path = folder / name
      is_dir = os.path.isdir(path) and not name.startswith(".")
      if name not in splits and (is_dir or not finding.is_foreign(path)):
        faults.append(
            f"{path}: in no split; expected only {', '.join(splits)} here. "
            "Move it into one of them, or away."
        )
  found = {}
  for split in splits or [SPLITS[0]]:
    folders = [f / split if splits else f for f in (image_dir, label_dir)]
    if not os.path.isdir(folders[1]):
      faults.append(
          f"{folders[1]}: no such folder; expected the labels of {folders[0]}. "
          "Add the folder."
      )
      continue
    listed = [finding.list_folder(f, with_subfolder=True) for f in folders]
    found[split], of_split = finding.match(*listed)
    if not found[split] and not of_split:
      of_split = [
          f"{folders[0]}: no images; expected PNG or JPEG files. Add them."
      ]
    faults += of_split
  return finding.Found(found, faults)


def _find_listed(
    root: pathlib.Path,
    lists: Mapping[str, pathlib.Path],
    image_dir: pathlib.Path | None,
    label_dir: pathlib.Path | None,
) -> finding.Found:
  folders = None
  if image_dir is not None and label_dir is not None:
    folders = [
        finding.list_folder(f, with_subfolder=True)
        for f in (image_dir, label_dir)
    ]
  found, faults, first = {}, [], {}
  homes = functools.cache(functools.partial(_homes, root))
  for split, list_file in lists.items():
    found[split] = []
    lines, of_list = finding.read_list(list_file)
    faults += of_list
    for place, fields in lines.items():
      try:
        pair = _pair_of_line(root, split, fields, folders, homes)
      except _FaultError as fault:
        faults.append(f"{place}: {fault}")
        continue
      # The same image, or another one of the same id.
      for key in (str(pair.image), (split, pair.name)):
        other, other_split = first.setdefault(key, (place, split))
        if other != place:
          where = f"in {split} and " * (other_split != split) + "first"
          faults.append(
              f"{place}: {fields[0]} occurs twice, {where} in {other}; "
              "expected each image once, in one split. Remove one line."
          )
          break
      else:
        found[split].append(pair)
    if not lines and not of_list:
      faults.append(
          f"{list_file}: no lines; expected an image and its label, or a name,"
          " per line. Fill the list or remove it."
      )
  return finding.Found(found, faults)


class _FaultError(Exception):
  """What is wrong with a line of a list."""


def _pair_of_line(
    root: pathlib.Path,
    split: str,
    fields: Sequence[str],
    folders: Sequence[finding.Folder] | None,
    homes: Callable[[str], Sequence[str]],
) -> finding.Pair:
  """Returns the pair that a line names, or raises a `_FaultError`."""
  for field in fields:
    if field.startswith("/") or ".." in field.split("/"):
      raise _FaultError(
          f"{field} leads out of the folder; expected a path inside {root}. "
          "Move the file there."
      )
  if len(fields) == 2:
    paths = [_file_inside(root, field, homes) for field in fields]
    name = pathlib.PurePosixPath(fields[0]).with_suffix("").as_posix()
  elif folders is None:
    raise _FaultError(
        f"found {fields[0]!r} alone; expected an image and its label, or the "
        f"folders images/ and labels/ in {root}. Complete the line or the "
        "folders."
    )
  else:
    name = _find_name(fields[0], split, folders)
    for folder in folders:
      if name in folder.faults:
        raise _FaultError(folder.faults[name])
    paths = [folder.files.get(name) for folder in folders]
  for what, path in zip(("image", "label"), paths, strict=True):
    if path is None:
      raise _FaultError(
          f"{what} of {' '.join(fields)} is missing; expected a file inside "
          f"{root}. Add the file or remove the line."
      )
  return finding.Pair(name, *paths)


def _find_name(
    field: str, split: str, folders: Sequence[finding.Folder]
) -> str:
  """Returns the id that a line names: with or without folder and suffix."""
  stem = finding.without_suffix(field)
  folders_of = stem.split("/")[-_MAX_DEPTH:]
  # Without its first folders, too: lists may start anywhere.
  tails = ("/".join(folders_of[i:]) for i in range(1, len(folders_of)))
  for name in (stem, f"{split}/{stem}", *tails):
    if any(name in f.files or name in f.faults for f in folders):
      return name
  return stem


def _file_inside(
    root: pathlib.Path, field: str, homes: Callable[[str], Sequence[str]]
) -> pathlib.Path | None:
  """Returns the file of a line; None if it is none or links lead it out."""
  path = root / field
  first = (*pathlib.PurePosixPath(field).parts, "")[0]
  real = pathlib.Path(os.path.realpath(path))
  if not any(real.is_relative_to(home) for home in homes(first)):
    return None
  return path if os.path.isfile(path) else None


def _homes(root: pathlib.Path, first: str) -> tuple[str, ...]:
  """Returns the folders that a path starting with a folder may lead to."""
  # What lies in the folder itself may be a link: the user put it there.
  inner = root / first
  return tuple(
      os.path.realpath(path) for path in (root, inner) if os.path.isdir(path)
  )


def _find_again(
    root: str | os.PathLike[str],
    name: str,
    source: None,
    *,
    any_size: bool,
) -> finding.Pairs:
  """The `find` of a specification: its folder has to be what it was."""
  del source, any_size
  root = _check_root(root)
  found = find(root).require_sound()
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
  path = absolute(root)
  if not os.path.isdir(path):
    raise errors.UserError(
        f"{path}: no such folder; expected {LAYOUTS}. Check data.root."
    )
  return path


def absolute(root: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a folder of the user's so that it is found from anywhere."""
  # Not its `resolve`: where a link leads may change.
  return pathlib.Path(os.path.abspath(os.path.expanduser(root)))


def _digest(root: pathlib.Path, found: finding.Pairs) -> str:
  content = files.read_bytes(root / CLASSES_FILE)
  digest = hashlib.sha256(content)
  for split, items in found.items():
    for pair in items:
      for path in (pair.image, pair.label):
        try:
          stat = os.stat(path)
        except OSError:
          files.open_regular(path, what="an image file").close()  # Says it.
          raise
        line = f"{split} {path.relative_to(root)} {stat.st_size}"
        digest.update(f"{line} {stat.st_mtime_ns}\n".encode())
  return digest.hexdigest()[:10]


def _mean(items: list[finding.Pair]) -> tuple[float, float, float]:
  """Returns the mean RGB of images spread over a split."""
  total = np.zeros(3)
  chosen = items[:: -(-len(items) // _MEAN_SAMPLE)]
  for pair in chosen:
    total += images.decode_image(pair.image).mean(axis=(0, 1))
  return tuple(np.round(total / len(chosen), 2).tolist())


def _first_dir(root: pathlib.Path, names: Iterable[str]) -> pathlib.Path | None:
  return next((root / n for n in names if os.path.isdir(root / n)), None)
