"""Finds the pairs of a user's own data, in one of two layouts.

Either images and labels are in two folders, maybe with subfolders for splits,
or lists say what there is. See `data.custom`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib

from ctxseg_jax import errors
from ctxseg_jax.data import finding
from ctxseg_jax.data import layouts

SPLITS = ("train", "val", "test")
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
LAYOUTS = (
    "classes.txt and images/{train,val}/*.jpg with labels of the same names in "
    "labels/{train,val}/*.png (or masks/), or train.txt and val.txt with an "
    "image and its label per line"
)


def find(root: pathlib.Path) -> finding.Found:
  """Finds the pairs of a folder, without opening an image.

  Raises:
    UserError: The folder is of no known layout, or cannot be read.
  """
  list_files = {}
  for split in SPLITS:
    for folder in _LIST_DIRS:
      path = root / folder / f"{split}.txt"
      if os.path.lexists(path):
        list_files.setdefault(split, path)
  folders = [
      next((root / name for name in names if os.path.isdir(root / name)), None)
      for names in (_IMAGE_DIRS, _LABEL_DIRS)
  ]
  if list_files:
    return _find_listed(root, list_files, folders)
  if None in folders:
    raise layouts.unknown(root, LAYOUTS)
  return find_in_folders(*folders)


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
      known = name in splits or name in _MISNAMED
      if not known and (is_dir or not finding.is_foreign(path)):
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
    list_files: Mapping[str, pathlib.Path],
    folders: Sequence[pathlib.Path | None],
) -> finding.Found:
  listed = []
  if None not in folders:
    listed = [finding.list_folder(f, with_subfolder=True) for f in folders]
  found, faults, first = {}, [], {}
  for split, list_file in list_files.items():
    found[split] = []
    lines, of_list = finding.read_list(list_file)
    faults += of_list
    for place, fields in lines.items():
      try:
        pair = _pair_of_line(root, split, fields, listed)
      except errors.UserError as fault:
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


def _pair_of_line(
    root: pathlib.Path,
    split: str,
    fields: Sequence[str],
    listed: Sequence[finding.Folder],
) -> finding.Pair:
  """Returns the pair of a line; `listed` are images and labels, if there."""
  for field in fields:
    if field.startswith("/") or ".." in field.split("/"):
      raise errors.UserError(
          f"{field} leads out of the folder; expected a path inside {root}. "
          "Move the file there."
      )
  if len(fields) == 2:
    paths = [_file_inside(root, field) for field in fields]
    name = pathlib.PurePosixPath(fields[0]).with_suffix("").as_posix()
  elif not listed:
    raise errors.UserError(
        f"found {fields[0]!r} alone; expected an image and its label, or the "
        f"folders images/ and labels/ in {root}. Complete the line or the "
        "folders."
    )
  else:
    name = _find_name(fields[0], split, listed)
    for folder in listed:
      if name in folder.faults:
        raise errors.UserError(folder.faults[name])
    paths = [folder.files.get(name) for folder in listed]
  for what, path in zip(("image", "label"), paths, strict=True):
    if path is None:
      raise errors.UserError(
          f"{what} of {' '.join(fields)} is missing; expected a file inside "
          f"{root}. Add the file or remove the line."
      )
  return finding.Pair(name, *paths)


def _find_name(field: str, split: str, listed: Sequence[finding.Folder]) -> str:
  """Returns the id that a line names: with or without folder and suffix."""
  stem = finding.without_suffix(field)
  parts = stem.split("/")[-_MAX_DEPTH:]
  # Without its first folders, too: lists may start anywhere.
  tails = ("/".join(parts[i:]) for i in range(1, len(parts)))
  for name in (stem, f"{split}/{stem}", *tails):
    if any(name in f.files or name in f.faults for f in listed):
      return name
  return stem


def _file_inside(root: pathlib.Path, field: str) -> pathlib.Path | None:
  """Returns the file of a line; None if it is none or links lead it out."""
  path = root / field
  real = pathlib.Path(os.path.realpath(path))
  # A folder in the root may be a link: the user put it there.
  first = root.joinpath(*path.relative_to(root).parts[:1])
  homes = [os.path.realpath(home) for home in {root, first} - {path}]
  if any(map(real.is_relative_to, homes)) and os.path.isfile(path):
    return path
  return None
