"""Images and labels in a user's folders: finding, matching and checking them.

Every fault of the files is told by file name when the dataset is prepared, and
never met in training. Images are stored byte by byte as they are; labels become
gray PNGs of train ids.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib

_SUFFIXES = (".png", ".jpg", ".jpeg")
_LABEL_SUFFIXES = (*_SUFFIXES, ".mat")


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


def read(
    spec: spec_lib.DatasetSpec,
    pair: Pair,
    *,
    decode: Callable[[pathlib.Path], np.ndarray] = images.decode_label,
) -> spec_lib.Example:
  """Reads and checks one pair.

  Args:
    spec: The dataset.
    pair: Paths of image and label.
    decode: Reads a label file to uint8 raw ids [H, W].

  Returns:
    The image as it is on disk, and the label as train ids.

  Raises:
    UserError: A file is unreadable or damaged, the sizes differ, or the label
      holds values that are no raw id.
  """
  data = images.read_bytes(pair.image)
  size = images.verify_image(data, str(pair.image))
  if pair.label is None:
    label = np.full(size, spec.ignore_label, np.uint8)
    return spec_lib.Example(pair.name, data, label)
  raw = decode(pair.label)
  if raw.shape != size:
    raise errors.UserError(
        f"{pair.label}: label of {_size(raw.shape)} for {pair.image} of "
        f"{_size(size)} (height x width); expected equal sizes. Labels are "
        "never resized: replace the wrong one."
    )
  label = spec.map_label(raw, str(pair.label))
  return spec_lib.Example(pair.name, data, label)


def find_root(
    source: pathlib.Path,
    inside: Sequence[str],
    marks: Sequence[str],
    layouts: str,
) -> pathlib.Path:
  """Returns the folder that a layout starts at.

  Args:
    source: The user's folder.
    inside: Where in it the layout may start; `""` is the folder itself.
    marks: Folders of which one has to be there for it to be the layout.
    layouts: All known layouts, for the message.

  Raises:
    UserError: No known layout; says what is there instead.
  """
  for root in (source / name for name in inside):
    if any((root / mark).is_dir() for mark in marks):
      return root
  raise unknown_layout(source, layouts)


def unknown_layout(source: pathlib.Path, layouts: str) -> errors.UserError:
  """Returns the error for a folder that holds something else."""
  if source.is_dir():
    names = sorted(path.name for path in source.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    state = f"no known layout (it holds {shown or 'nothing'})"
  else:
    state = "no such folder"
  return errors.UserError(
      f"{source}: {state}; expected {layouts}. Pass the folder that holds "
      "them as --source."
  )


def match(
    image_dir: pathlib.Path,
    label_dir: pathlib.Path,
    *,
    layouts: str,
    list_file: pathlib.Path | None = None,
    labels: Mapping[str, pathlib.Path] | None = None,
) -> list[Pair]:
  """Matches the images of a folder with the labels of another.

  Args:
    image_dir: Folder of images.
    label_dir: Folder of labels.
    layouts: All known layouts, for messages.
    list_file: Names the images of the split and their order. Without one it is
      all of the folder, by name.
    labels: The labels by id, unless they have the names of their images.

  Raises:
    UserError: A file is missing or an id occurs twice.
  """
  for folder in (image_dir, label_dir):
    if not folder.is_dir():
      raise errors.UserError(
          f"{folder}: no such folder; expected {layouts}. Complete the "
          "source, or pass --any_size to leave the split out."
      )
  by_name = files_by_stem(image_dir)
  if labels is None:
    labels = files_by_stem(label_dir, _LABEL_SUFFIXES)
  if list_file is not None:
    entries = read_list(list_file)
  else:
    # Without a list a label that has no image is as much a fault as the
    # reverse; with one, it is merely not listed.
    entries = {name: str(image_dir) for name in sorted(by_name)}
    for name in sorted(set(labels) - set(by_name)):
      raise errors.UserError(
          f"{labels[name]}: label without an image; expected {name}.png or "
          f".jpg in {image_dir}. Add the image or remove the label."
      )
  pairs = select(entries, by_name, labels, image_dir, label_dir)
  if not pairs:
    raise errors.UserError(
        f"{image_dir}: no images; expected {layouts}. Complete the source."
    )
  return pairs


def select(
    entries: Mapping[str, str],
    by_name: Mapping[str, pathlib.Path],
    labels: Mapping[str, pathlib.Path],
    image_dir: pathlib.Path,
    label_dir: pathlib.Path,
) -> list[Pair]:
  """Returns the pairs of a list of ids.

  Args:
    entries: The ids in order, each with the place it is listed at.
    by_name: Images by id.
    labels: Labels by id.
    image_dir: Where an image that is missing should be.
    label_dir: Where a label that is missing should be.

  Raises:
    UserError: Tells the first file that is missing and how many are.
  """
  lost = [name for name in entries if name not in by_name]
  if lost:
    raise errors.UserError(
        f"{entries[lost[0]]}: image {lost[0]} is missing ({len(lost)} of "
        f"{len(entries)} are); expected {lost[0]}.png or .jpg in {image_dir}. "
        "Add the files or remove the lines."
    )
  lost = [name for name in entries if name not in labels]
  if lost:
    raise errors.UserError(
        f"{by_name[lost[0]]}: label is missing ({len(lost)} of {len(entries)} "
        f"are); expected {label_dir / lost[0]}.png. Add the labels or remove "
        "the images."
    )
  return [Pair(name, by_name[name], labels[name]) for name in entries]


def files_by_stem(
    folder: pathlib.Path, suffixes: tuple[str, ...] = _SUFFIXES
) -> dict[str, pathlib.Path]:
  """Returns the files of a folder by their names without suffix, sorted.

  Args:
    folder: The folder.
    suffixes: Which files count, in lower case.

  Raises:
    UserError: Two files share an id.
  """
  files = {}
  for path in sorted(folder.iterdir()):
    # Archives made on a Mac hold a "._name.png" beside every file.
    if path.suffix.lower() not in suffixes or path.name.startswith("."):
      continue
    if path.stem in files:
      raise errors.UserError(
          f"{path}: id {path.stem} occurs twice, also as "
          f"{files[path.stem].name}; expected one file per id. Remove one."
      )
    files[path.stem] = path
  return files


def read_list(list_file: pathlib.Path) -> dict[str, str]:
  """Returns the ids of a list in order, each with `file:line` for messages.

  A line names an image, optionally followed by its label. Only their names
  count: the published lists carry the path of their author's machine.

  Args:
    list_file: A text file.

  Raises:
    UserError: The file is unreadable, a line is odd or an id occurs twice.
  """
  if not list_file.is_file():
    raise errors.UserError(
        f"{list_file}: no such file; expected the list of a split, an id per "
        "line. Complete the source, or pass --any_size to leave the split out."
    )
  try:
    text = list_file.read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(
        f"{list_file}: cannot be read as a text file ({error}); expected a "
        "name or an image and a label per line. Replace or remove the list."
    ) from error
  entries = {}
  for number, line in enumerate(text.splitlines(), start=1):
    place = f"{list_file}:{number}"
    names = [_stem(field) for field in line.split()]
    if not names:
      continue
    if len(names) > 2 or len(set(names)) > 1:
      raise errors.UserError(
          f"{place}: found {line.strip()!r}; expected a name, or an image and "
          "a label of the same name. Mend the line."
      )
    if names[0] in entries:
      raise errors.UserError(
          f"{place}: id {names[0]} occurs twice, first in {entries[names[0]]}; "
          "expected each id once. Remove one line."
      )
    entries[names[0]] = place
  return entries


def check_disjoint(pairs: Mapping[str, Sequence[Pair]]) -> None:
  """Refuses an id that is in two splits: results on it would mean nothing."""
  first = {}
  for split, split_pairs in pairs.items():
    for pair in split_pairs:
      if pair.name in first:
        raise errors.UserError(
            f"{pair.image}: id {pair.name} is in {split} and in "
            f"{first[pair.name]}; expected each id in one split. Remove it "
            "from one, or results on it mean nothing."
        )
      first[pair.name] = split


def _stem(field: str) -> str:
  name = field.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
  for suffix in _SUFFIXES:
    # Not Path.stem: ids may hold dots.
    if name.lower().endswith(suffix):
      return name[: -len(suffix)]
  return name


def _size(shape: tuple[int, ...]) -> str:
  return f"{shape[0]}x{shape[1]}"
