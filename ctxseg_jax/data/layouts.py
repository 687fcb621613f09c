"""Where published datasets keep their pairs."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import pathlib

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import finding
from ctxseg_jax.data import lists


@dataclasses.dataclass(frozen=True)
class Split:
  """Where a published layout keeps a split.

  Attributes:
    images: Folder of images.
    labels: Folder of labels; None if they are not public.
    list_file: Names the images and their order; without one it is all of the
      folder, by name.
    image_end: What file names of images have behind the id.
    label_ends: What those of labels have; of two files the first end counts.
    nested: Whether files are in subfolders, which are not part of the id.
  """

  images: pathlib.Path
  labels: pathlib.Path | None
  list_file: pathlib.Path | None = None
  image_end: str = ""
  label_ends: Sequence[str] = ("",)
  nested: bool = False

  def is_there(self) -> bool:
    """Whether its list is there, or the images of one that needs none."""
    return os.path.exists(self.list_file or self.images)


def find_splits(
    splits: Mapping[str, Split], layouts: str, *, any_size: bool
) -> finding.Pairs:
  """Finds the pairs of a published layout.

  Args:
    splits: Where they are.
    layouts: All known layouts, for messages.
    any_size: Whether a split may be missing.

  Returns:
    The pairs of each split, in the order of its list or else by id.

  Raises:
    UserError: A file is missing, or an id occurs twice, also in two splits.
  """
  found, faults = {}, []
  for name, split in splits.items():
    if split.is_there() or not any_size:
      found[name], of_split = _find_split(split, layouts)
      faults += of_split
  return finding.Found(
      found, [*faults, *finding.shared_ids(found)]
  ).require_sound()


def _find_split(
    split: Split, layouts: str
) -> tuple[list[finding.Pair], list[str]]:
  for folder in (split.images, split.labels):
    if folder is not None and not os.path.isdir(folder):
      raise errors.UserError(
          f"{folder}: no such folder; expected {layouts}. Complete the "
          "source, or pass --any_size to leave the split out."
      )
  images = finding.list_folder(
      split.images,
      suffixes=finding.IMAGE_SUFFIXES,
      ends=(split.image_end,),
      nested=split.nested,
  )
  if split.labels is None:
    pairs = [
        finding.Pair(name, path, None) for name, path in images.files.items()
    ]
    return sorted(pairs, key=lambda pair: pair.name), [*images.faults.values()]
  labels = finding.list_folder(
      split.labels,
      suffixes=(*finding.IMAGE_SUFFIXES, ".mat"),
      ends=split.label_ends,
      nested=split.nested,
  )
  if split.list_file is None:
    pairs, faults = finding.match(images, labels)
  else:
    places, faults = lists.read_ids(split.list_file)
    pairs, of_list = finding.select(places, images, labels)
    faults += of_list
  if not pairs and not faults:
    faults = [
        f"{split.images}: no images; expected {layouts}. Complete the source."
    ]
  return pairs, faults


def find_root(
    source: pathlib.Path,
    inside: Iterable[str],
    marks: Iterable[str],
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
    if any(os.path.isdir(root / mark) for mark in marks):
      return root
  raise unknown_layout(source, layouts)


def unknown_layout(source: pathlib.Path, layouts: str) -> errors.UserError:
  """Returns the error for a folder that holds something else."""
  state = "no such folder"
  if os.path.isdir(source):
    names = sorted(files.printable(name) for name in finding.names_in(source))
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    state = f"no known layout (it holds {shown or 'nothing'})"
  return errors.UserError(
      f"{source}: {state}; expected {layouts}. Pass the folder that holds "
      "them as --source."
  )
