"""Finds the pairs of images and labels in folders and text files of names.

Nothing is decoded here. A fault is a line that names the file; all are
collected, so that a check can list them, while preparing stops at the first.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import pathlib

from ctxseg_jax import errors
from ctxseg_jax import files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Images that would be overlooked otherwise.
_OTHER_SUFFIXES = (
    *(".bmp", ".gif", ".jp2", ".npy", ".pgm", ".ppm", ".tif", ".tiff"),
    *(".webp", ".heic"),
)


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image and its label on disk, with the id they share.

  Attributes:
    name: The id.
    image: Path of the image.
    label: Path of the label; None for a split whose labels are not public,
      all pixels of which are ignored.
  """

  name: str
  image: pathlib.Path
  label: pathlib.Path | None


Pairs = dict[str, list[Pair]]  # By split.


@dataclasses.dataclass(frozen=True)
class Found:
  """What folders or lists hold.

  Attributes:
    pairs: By split, in order.
    faults: What is wrong, a line each; the pairs are those without a fault.
  """

  pairs: Pairs
  faults: list[str]

  def require_sound(self) -> Pairs:
    """Returns the pairs; a fault is a `UserError` of the first one."""
    refuse(self.faults)
    return self.pairs


@dataclasses.dataclass(frozen=True)
class Folder:
  """The images or labels of a folder.

  Attributes:
    path: The folder.
    files: By id.
    faults: A line for each file that cannot be used, by the id it would have.
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
    more = f" (and {others} faults more)" if others else ""
    raise errors.UserError(faults[0] + more)


def list_folder(
    folder: pathlib.Path,
    *,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    ends: Sequence[str] = ("",),
    with_subfolder: bool = False,
) -> Folder:
  """Lists the images or labels of a folder and of those in it.

  Args:
    folder: The folder.
    suffixes: Which files count, in lower case.
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
    elif path.suffix.lower() not in suffixes:
      faults[name] = (
          f"{path}: found a file of type {path.suffix}; expected PNG or JPEG. "
          "Convert the file, labels to PNG."
      )
    elif name in found and rank == ranks[name]:
      faults[name] = (
          f"{path}: id {name} occurs twice, also as {found[name].name}; "
          "expected one file per id. Remove one."
      )
    elif name not in found or rank < ranks[name]:
      found[name], ranks[name] = path, rank
  return Folder(folder, found, faults, ends[0])


def match(images: Folder, labels: Folder) -> tuple[list[Pair], list[str]]:
  """Returns the pairs of all images and labels by id, and the faults."""
  names = images.files.keys() | images.faults.keys() | labels.faults.keys()
  pairs, faults = select(dict.fromkeys(sorted(names)), images, labels)
  for name in sorted(labels.files.keys() - names):
    faults.append(
        f"{labels.files[name]}: label without an image; expected {name}.png or "
        f".jpg in {images.path}. Add the image or remove the label."
    )
  return pairs, faults


def select(
    places: Mapping[str, str | None], images: Folder, labels: Folder
) -> tuple[list[Pair], list[str]]:
  """Returns the pairs of a list, and the faults.

  Args:
    places: The ids in order, each with the place it is listed at.
    images: Where the images are.
    labels: Where the labels are.
  """
  pairs, faults = [], []
  for name, place in places.items():
    image, label = images.files.get(name), labels.files.get(name)
    fault = images.faults.get(name) or labels.faults.get(name)
    if not fault and image is None:
      fault = (
          f"{place}: image {name} is missing; expected {name}.png or .jpg in "
          f"{images.path}. Add the file or remove the line."
      )
    elif not fault and label is None:
      folder = labels.path / image.relative_to(images.path).parent
      fault = (
          f"{image}: label is missing; expected "
          f"{folder / name.rpartition('/')[2]}{labels.end}.png. Add the label "
          "or remove the image."
      )
    if fault:
      faults.append(fault)
    else:
      pairs.append(Pair(name, image, label))
  return pairs, faults


def shared_ids(found: Mapping[str, Sequence[Pair]]) -> list[str]:
  """Returns a fault for each id in two splits: results would mean nothing."""
  first, faults = {}, []
  for split, pairs in found.items():
    for pair in pairs:
      other = first.setdefault(pair.name, split)
      if other != split:
        faults.append(
            f"{pair.image}: id {pair.name} is in {split} and in {other}; "
            "expected each id in one split. Remove it from one, or results on "
            "it mean nothing."
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
  known = (*IMAGE_SUFFIXES, ".mat", *_OTHER_SUFFIXES)
  return path.name.startswith(".") or path.suffix.lower() not in known


def read_list(
    list_file: pathlib.Path,
) -> tuple[dict[str, list[str]], list[str]]:
  """Returns the one or two fields of each line by `file:line`, and the faults.

  Raises:
    UserError: The list cannot be read.
  """
  text = files.read_text(
      list_file,
      what="a text file, an image and its label or a name per line",
      remedy="Replace the list, remove it, or pass --any_size to leave a "
      "published split out.",
  )
  lines, faults = {}, []
  for number, line in enumerate(text.splitlines(), start=1):
    place = f"{list_file}:{number}"
    # Names with blanks in them take a tab.
    fields = line.split("\t") if "\t" in line.strip() else line.split()
    fields = [field.strip().replace("\\", "/") for field in fields]
    if len(fields) > 2 or not all(f and f.isprintable() for f in fields):
      faults.append(
          f"{place}: found {line.strip()[:200]!r}; expected an image and its "
          "label with a blank or a tab between, or a name. Mend the line."
      )
    elif fields:
      lines[place] = fields
  return lines, faults


def read_ids(list_file: pathlib.Path) -> tuple[dict[str, str], list[str]]:
  """Returns the places by the ids of a published list, and the faults.

  Only the names of files count: published lists carry the path of their
  author's machine.

  Raises:
    UserError: The list cannot be read.
  """
  lines, faults = read_list(list_file)
  places = {}
  for place, fields in lines.items():
    names = [without_suffix(field).rpartition("/")[2] for field in fields]
    if len(set(names)) > 1:
      faults.append(
          f"{place}: found {' '.join(fields)!r}; expected a name, or an image "
          "and a label of the same name. Mend the line."
      )
    elif names[0] in places:
      faults.append(
          f"{place}: id {names[0]} occurs twice, first in {places[names[0]]}; "
          "expected each id once. Remove one line."
      )
    else:
      places[names[0]] = place
  return places, faults


def without_suffix(name: str) -> str:
  """Returns a name without the suffix of an image; ids may hold dots."""
  stem, dot, suffix = name.rpartition(".")
  return stem if dot + suffix.lower() in IMAGE_SUFFIXES else name


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields all that is no folder, in the order of names."""

  def fail(error):
    raise _unreadable(error) from error

  for root, folders, names in os.walk(folder, onerror=fail):
    folders[:] = sorted(f for f in folders if not f.startswith("."))
    yield from (pathlib.Path(root, name) for name in sorted(names))


def _unreadable(error: OSError) -> errors.UserError:
  return errors.UserError(
      f"{files.printable(error.filename)}: cannot be read ({error.strerror}); "
      "expected a folder of images or labels. Check its permissions."
  )
