"""Finds the pairs of images and labels in folders and text files of names.

Nothing is decoded here. A fault is a line that names the file; all are
collected, so that a check can list them, while preparing stops at the first.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import operator
import os
import pathlib

from ctxseg_jax import errors
from ctxseg_jax import files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_SUFFIXES = (*IMAGE_SUFFIXES, ".mat")
# Images that would be overlooked otherwise.
_OTHER_SUFFIXES = (".gif", ".jp2", ".npy", ".pgm", ".ppm", ".heic")
_MAX_DEPTH = 20  # Folders of a path in a list that are looked into.


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image and its label on disk, by the id they share.

  The label is None in a split whose labels are not public, where all pixels are
  ignored.
  """

  name: str
  image: pathlib.Path
  label: pathlib.Path | None


Pairs = dict[str, list[Pair]]  # By split.


@dataclasses.dataclass(frozen=True)
class Folder:
  """The images or labels of a folder, by id.

  Attributes:
    path: The folder.
    files: Those that can be used.
    faults: A line for each of the others.
    end: What file names have behind the id.
  """

  path: pathlib.Path
  files: Mapping[str, pathlib.Path]
  faults: Mapping[str, str]
  end: str


def refuse(faults: Sequence[str]) -> None:
  """Raises a `UserError` of the first fault and the number of others."""
  if faults:
    others = len(faults) - 1
    more = f" (and {others} more fault{'s' * (others > 1)})" if others else ""
    raise errors.UserError(faults[0] + more)


def list_folder(
    folder: pathlib.Path,
    *,
    ends: Sequence[str] = ("",),
    with_subfolder: bool = False,
) -> Folder:
  """Lists the images or labels of a folder and of those in it.

  Args:
    folder: The folder.
    ends: What file names have behind the id; of two files the first end counts.
    with_subfolder: Whether the id holds the path of the subfolder.

  Raises:
    UserError: The folder, or one in it, cannot be read.
  """
  found, faults, ranks = {}, {}, {}
  for path in _walk(folder):
    place = path.relative_to(folder)
    # The longest, since every name ends with nothing.
    end = max((e for e in ends if path.stem.endswith(e)), key=len, default=None)
    if is_foreign(path) or end is None:
      continue
    name, rank = path.stem.removesuffix(end), ends.index(end)
    if with_subfolder:
      name = place.with_name(name).as_posix()
    if files.printable(place) != str(place):
      faults[name] = (
          f"{files.printable(path)}: a name that is not printable UTF-8; "
          "expected text. Rename the file or its folder."
      )
    elif path.suffix.lower() not in _SUFFIXES:
      faults[name] = (
          f"{path}: found a file of type {path.suffix}; expected PNG, JPEG, "
          "TIFF, BMP or WebP. Convert the file, labels to PNG."
      )
    elif name in found and rank == ranks[name]:
      faults[name] = (
          f"{path}: id {name} occurs twice, also as {found[name].name}; "
          "expected one file per id. Remove one."
      )
    elif name not in found or rank < ranks[name]:
      found[name], ranks[name] = path, rank
  return Folder(folder, found, faults, ends[0])


def match(
    images: Folder, labels: Folder | None, names: Iterable[str] | None = None
) -> tuple[list[Pair], list[str]]:
  """Returns the pairs of two folders in the order of their ids, and the faults.

  Args:
    images: Where the images are.
    labels: Where the labels are; None if they are not public.
    names: The ids that count; None for all of both folders.
  """
  if names is None:
    folders = filter(None, (images, labels))
    names = {name for f in folders for name in (*f.files, *f.faults)}
  pairs, faults = [], []
  for name in sorted(names):
    try:
      pairs.append(pair_of(name, images, labels))
    except errors.UserError as fault:
      faults.append(str(fault))
  if not pairs and not faults:
    faults.append(
        f"{images.path}: no images; expected PNG, JPEG, TIFF, BMP or WebP "
        "files. Add them."
    )
  return pairs, faults


def pair_of(name: str, images: Folder, labels: Folder | None) -> Pair:
  """Returns the pair of an id; arguments are those of `match`.

  Raises:
    UserError: One of its files is missing or cannot be used.
  """
  for folder in filter(None, (images, labels)):
    if name in folder.faults:
      raise errors.UserError(folder.faults[name])
  image = images.files.get(name)
  label = labels.files.get(name) if labels else None
  if image is None:
    raise errors.UserError(
        f"{label or name}: image is missing; expected {name}{images.end}.png "
        f"or .jpg in {images.path}. Add the image, or remove label and line."
    )
  if labels and label is None:
    subfolder = image.relative_to(images.path).parent
    file = f"{name.rpartition('/')[2]}{labels.end}.png"
    raise errors.UserError(
        f"{image}: label is missing; expected {labels.path / subfolder / file}."
        " Add the label or remove the image."
    )
  return Pair(name, image, label)


def read_list(
    list_file: pathlib.Path, pair_of_line: Callable[[list[str]], Pair]
) -> tuple[list[Pair], list[str]]:
  """Returns the pairs of a text file in its order, and the faults.

  Args:
    list_file: A line of it is an image and its label, or a name.
    pair_of_line: Returns the pair of the one or two fields of a line, or raises
      a `UserError`.

  Raises:
    UserError: The list cannot be read.
  """
  text = files.read_text(
      list_file,
      what="a text file, an image and its label or a name per line",
      remedy="Replace the list, remove it, or pass --any_size to leave a "
      "published split out.",
  )
  pairs, faults, places = [], [], {}
  for number, line in enumerate(text.splitlines(), start=1):
    place = f"{list_file}:{number}"
    # Names with blanks in them take a tab.
    fields = line.split("\t") if "\t" in line.strip() else line.split()
    fields = [field.strip().replace("\\", "/") for field in fields]
    if not fields:
      continue
    try:
      if len(fields) > 2 or not all(f and f.isprintable() for f in fields):
        raise errors.UserError(
            f"found {line.strip()[:200]!r}; expected an image and its label "
            "with a blank or a tab between, or a name. Mend the line."
        )
      pair = pair_of_line(fields)
      # Without its suffix, since neither have the names of examples one.
      first = places.setdefault(pair.image.with_suffix(""), place)
      if first != place:
        raise errors.UserError(
            f"{fields[0]} occurs twice, first in {first}; expected each image "
            "once. Remove one line."
        )
      pairs.append(pair)
    except errors.UserError as fault:
      faults.append(f"{place}: {fault}")
  if not pairs and not faults:
    faults.append(
        f"{list_file}: no lines; expected an image and its label, or a name, "
        "per line. Fill the list or remove it."
    )
  return pairs, faults


def name_of_field(
    field: str, folders: Sequence[Folder], split: str = ""
) -> str:
  """Returns the id that a line means: with or without folders and suffix."""
  stem, dot, suffix = field.rpartition(".")
  if dot + suffix.lower() not in IMAGE_SUFFIXES:  # Ids may hold dots.
    stem = field
  parts = stem.split("/")[-_MAX_DEPTH:]
  # Without its first folders, too: lists may start anywhere.
  tails = ["/".join(parts[i:]) for i in range(len(parts))]
  for name in (stem, f"{split}/{stem}", *tails):
    if any(name in f.files or name in f.faults for f in folders):
      return name
  return tails[-1]


def shared(
    found: Mapping[str, Sequence[Pair]],
    by: str = "name",
    remedy: str = "Remove it from one, or results on it mean nothing.",
) -> list[str]:
  """Returns a fault for each pair of which two splits hold the name, or image.

  Results would mean nothing.
  """
  first, faults = {}, []
  key = operator.attrgetter(by)
  for split, pairs in found.items():
    for pair in pairs:
      other = first.setdefault(key(pair), split)
      if other != split:
        faults.append(
            f"{pair.image}: id {pair.name} is in {split} and in {other}; "
            f"expected each id in one split. {remedy}"
        )
  return faults


def names_in(folder: pathlib.Path) -> list[str]:
  """Returns what a folder holds, sorted; `UserError` if it is unreadable."""
  try:
    return sorted(os.listdir(folder))
  except OSError as error:
    raise _unreadable(error) from error


def is_foreign(path: pathlib.Path) -> bool:
  """Whether a file is none of images: notes, metadata, hidden files."""
  # Archives made on a Mac hold a "._name.png" beside every file.
  known = path.suffix.lower() in (*_SUFFIXES, *_OTHER_SUFFIXES)
  return path.name.startswith(".") or not known


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields all that is no folder, in the order of names."""

  def fail(error):
    raise _unreadable(error) from error

  for root, folders, names in os.walk(folder, onerror=fail):
    folders[:] = sorted(f for f in folders if not f.startswith("."))
    yield from (pathlib.Path(root, name) for name in sorted(names))


def _unreadable(error: OSError) -> errors.UserError:
  reason = f"cannot be read ({error.strerror})"
  if isinstance(error, FileNotFoundError):
    reason = "no such folder"
  return errors.UserError(
      f"{files.printable(error.filename)}: {reason}; expected a folder of "
      "images or labels. Check the path and its permissions."
  )
