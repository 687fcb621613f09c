"""Finds the pairs of a user's own data, in one of the layouts of `data.custom`.

Either images and labels are in two folders, maybe with subfolders for splits,
or lists say what there is.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
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
_MISNAMED = ("training", "valid", "validation", "testing")
# What names of labels may have behind the name of their image.
_LABEL_ENDS = tuple(
    mark + word
    for mark in "_-."
    for word in (
        *("mask", "masks", "label", "labels", "gt", "seg", "segmentation"),
        *("annotation", "groundtruth"),
    )
)
OVERLAP_REMEDY = (
    "Remove it from one, or allow it by --overlapping_splits, in training "
    "--config.data.overlapping_splits=True; results on it mean nothing then."
)
LAYOUTS = (
    "classes.txt and images/{train,val}/*.jpg with labels of the same names in "
    "labels/{train,val}/*.png (or masks/), or train.txt and val.txt with an "
    "image and its label per line; or an export of CVAT, Roboflow, LabelMe or "
    "COCO, see docs/data.md"
)


def is_there(root: pathlib.Path) -> bool:
  """Whether a folder looks like one of the layouts, and not like COCO's."""
  folders, list_files = _look(root)
  if list_files:
    return True
  return None not in folders and not any(folders[1].glob("*.json"))


def find(root: pathlib.Path) -> tuple[finding.Pairs, list[str]]:
  """Returns the pairs of a folder, and the faults, without opening an image.

  Raises:
    UserError: The folder is of no known layout, or cannot be read.
  """
  folders, list_files = _look(root)
  if list_files:
    return _find_listed(root, list_files, folders)
  if None in folders:
    raise layouts.unknown(root, LAYOUTS)
  return find_in_folders(*folders)


def find_in_folders(
    image_dir: pathlib.Path, label_dir: pathlib.Path
) -> tuple[finding.Pairs, list[str]]:
  """Returns the pairs of two folders, by their names, and the faults.

  Args:
    image_dir: Images, in subfolders `train`, `val` and `test` if there are any
      of these, and in any further ones.
    label_dir: Labels, in the same subfolders.

  Raises:
    UserError: A folder is not there or cannot be read.
  """
  folders = (image_dir, label_dir)
  found, faults = {}, []
  paths = [folder / n for folder in folders for n in finding.names_in(folder)]
  splits = [s for s in SPLITS if os.path.isdir(image_dir / s)]
  if splits or any(os.path.isdir(image_dir / name) for name in _MISNAMED):
    # A file beside the folders of splits is in no split, which is no purpose.
    for path in paths:
      is_dir = os.path.isdir(path) and not path.name.startswith(".")
      if path.name not in splits and (is_dir or not finding.is_foreign(path)):
        faults.append(
            f"{path}: in no split; expected only {', '.join(splits or SPLITS)} "
            "here. Rename it, move it into one of them, or away."
        )
  else:
    splits = [""]
  for split in splits:
    try:
      images, labels = _list_both([folder / split for folder in folders])
    except errors.UserError as fault:
      faults.append(str(fault))
    else:
      found[split or SPLITS[0]], of_split = finding.match(images, labels)
      both = images.files and labels.files
      if both and images.files.keys().isdisjoint(labels.files):
        of_split = [_unmatched(images, labels)]
        of_split += [*images.faults.values(), *labels.faults.values()]
      faults += of_split
  return found, faults


def _look(
    root: pathlib.Path,
) -> tuple[list[pathlib.Path | None], dict[str, pathlib.Path]]:
  """Returns the folders of images and labels, and the lists by split."""
  folders = [
      next((root / name for name in names if os.path.isdir(root / name)), None)
      for names in (_IMAGE_DIRS, _LABEL_DIRS)
  ]
  list_files = {}
  for split in SPLITS:
    for folder in _LIST_DIRS:
      path = root / folder / f"{split}.txt"
      if os.path.lexists(path):
        list_files.setdefault(split, path)
  return folders, list_files


def _find_listed(
    root: pathlib.Path,
    list_files: Mapping[str, pathlib.Path],
    folders: Sequence[pathlib.Path | None],
) -> tuple[finding.Pairs, list[str]]:
  listed = []
  if None not in folders:
    listed = _list_both(folders)
  found, faults = {}, []
  for split, list_file in list_files.items():
    pair_of_line = functools.partial(_pair_of_line, root, split, listed)
    found[split], of_list = finding.read_list(list_file, pair_of_line)
    faults += of_list
  return found, faults


def _list_both(
    folders: Sequence[pathlib.Path],
) -> tuple[finding.Folder, finding.Folder]:
  """Lists images and labels, these by the names of their images."""
  images, labels = (
      finding.list_folder(folder, with_subfolder=True) for folder in folders
  )
  by_name = dict(labels.files)
  # An image that is itself called so keeps its label.
  for name in sorted(labels.files.keys() - images.files.keys()):
    ends = (len(e) for e in _LABEL_ENDS if name.lower().endswith(e))
    bare = name[: -next(ends, len(name))]
    # Of two labels none can be chosen; the second has no image, then.
    if bare in images.files and bare not in by_name:
      by_name[bare] = by_name.pop(name)
  return images, dataclasses.replace(labels, files=by_name)


def _unmatched(images: finding.Folder, labels: finding.Folder) -> str:
  """Returns the one fault where each image and label would be another."""
  names = [
      next(iter(folder.files.values())).name for folder in (images, labels)
  ]
  return (
      f"{labels.path}: no label of {len(labels.files)} has the name of an "
      f"image ({names[1]}, where images are {names[0]} and so on); expected "
      "the same names, perhaps with _mask, _label or _gt behind. Rename the "
      "labels, or list an image and its label per line in train.txt and "
      "val.txt."
  )


def _pair_of_line(
    root: pathlib.Path,
    split: str,
    listed: Sequence[finding.Folder],
    fields: Sequence[str],
) -> finding.Pair:
  """Returns the pair of a line; `listed` are images and labels, if there."""
  if len(fields) == 2:
    image, label = (_file_inside(root, field) for field in fields)
    name = pathlib.PurePosixPath(fields[0]).with_suffix("").as_posix()
    return finding.Pair(name, image, label)
  if not listed:
    raise errors.UserError(
        f"found {fields[0]!r} alone; expected an image and its label, or the "
        f"folders images/ and labels/ in {root}. Complete the line or the "
        "folders."
    )
  name = finding.name_of_field(fields[0], listed, split)
  return finding.pair_of(name, *listed)


def _file_inside(root: pathlib.Path, field: str) -> pathlib.Path:
  """Returns the file that a line names, which no link may lead out."""
  path = root / field
  parts = pathlib.PurePosixPath(field).parts
  # A folder in the root may be a link: the user put it there.
  homes = {root, root.joinpath(*parts[:1])} - {path}
  real = pathlib.Path(os.path.realpath(path))
  if (
      field.startswith("/")
      or ".." in parts
      or not any(real.is_relative_to(os.path.realpath(h)) for h in homes)
  ):
    raise errors.UserError(
        f"{field} leads out of the folder; expected a path inside {root}. "
        "Move the file there."
    )
  if not os.path.isfile(path):
    raise errors.UserError(
        f"{field} is missing; expected a file inside {root}. Add the file or "
        "remove the line."
    )
  return path
