"""Where published datasets keep their pairs."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import pathlib

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import finding


@dataclasses.dataclass(frozen=True)
class Split:
  """Where a published layout keeps a split; all paths are inside its folder.

  Attributes:
    images: Folder of images.
    labels: Folder of labels; None if they are not public.
    list_file: Names the images and their order; without one it is all of the
      folder, by name.
    needs_list: Whether the list has to be there.
    image_end: What file names of images have behind the id.
    label_ends: What those of labels have; of two files the first end counts.
    is_optional: Whether a complete source may lack it.
  """

  images: str
  labels: str | None
  list_file: str | None = None
  needs_list: bool = True
  image_end: str = ""
  label_ends: Sequence[str] = ("",)
  is_optional: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
  """How published files are laid out.

  Attributes:
    text: Describes it, for messages.
    inside: Where in the user's folder it may start; `""` is the folder itself.
    variants: Splits by name, each time in other places; that variant counts of
      which most is there, the first of equal ones.
    first_missing: `(split, pairs)` -> what is missing in a split, for messages;
      empty if nothing is.
  """

  text: str
  inside: Sequence[str]
  variants: Sequence[Mapping[str, Split]]
  first_missing: Callable[[str, Sequence[finding.Pair]], str] | None = None

  def find(self, source: pathlib.Path, *, any_size: bool) -> finding.Pairs:
    """Finds the pairs of every split; see `DatasetSpec.find`."""
    root, splits = self.locate(source)
    found, faults = {}, []
    for name, split in splits.items():
      is_listed = split.list_file is not None and split.needs_list
      needed = [split.list_file if is_listed else split.images]
      if split.is_optional and split.labels is not None:
        needed.append(split.labels)
      is_there = all(os.path.exists(root / path) for path in needed)
      if is_there or not (any_size or split.is_optional):
        found[name], of_split = self._find_split(root, split)
        faults += of_split
    faults += finding.shared_ids(found)
    found = finding.Found(found, faults).require_sound()
    for name, pairs in found.items() if not any_size else ():
      missing = self.first_missing and self.first_missing(name, pairs)
      if missing:
        raise errors.UserError(
            f"{root / splits[name].images}: found {len(pairs)} images of "
            f"{name}, {missing}. Complete the folder, or pass --any_size to "
            "prepare what is there."
        )
    return found

  def locate(
      self, source: pathlib.Path
  ) -> tuple[pathlib.Path, Mapping[str, Split]]:
    """Returns the folder that the layout starts at, and its splits.

    Raises:
      UserError: No known layout; says what is there instead.
    """
    best, most = None, 0
    for root in (source / name for name in self.inside):
      for splits in self.variants:
        there = [
            sum(
                os.path.exists(root / path)
                for path in (s.images, s.labels, s.list_file)
                if path
            )
            for s in splits.values()
            if s.labels and os.path.isdir(root / s.labels)
        ]
        if sum(there) > most:
          best, most = (root, splits), sum(there)
    if best is None:
      raise unknown(source, self.text)
    return best

  def _find_split(
      self, root: pathlib.Path, split: Split
  ) -> tuple[list[finding.Pair], list[str]]:
    for folder in filter(None, (split.images, split.labels)):
      if not os.path.isdir(root / folder):
        raise errors.UserError(
            f"{root / folder}: no such folder; expected {self.text}. Complete "
            "the source, or pass --any_size to leave the split out."
        )
    images = finding.list_folder(root / split.images, ends=(split.image_end,))
    if split.labels is None:
      paths = sorted(images.files.items())
      pairs = [finding.Pair(name, path, None) for name, path in paths]
      return pairs, [*images.faults.values()]
    labels = finding.list_folder(
        root / split.labels,
        suffixes=(*finding.IMAGE_SUFFIXES, ".mat"),
        ends=split.label_ends,
    )
    list_file = root / split.list_file if split.list_file else None
    if list_file is None or not (split.needs_list or list_file.is_file()):
      pairs, faults = finding.match(images, labels)
    else:
      places, faults = finding.read_ids(list_file)
      pairs, of_list = finding.select(places, images, labels)
      faults += of_list
    if not pairs and not faults:
      faults = [
          f"{images.path}: no images; expected {self.text}. Complete the "
          "source."
      ]
    return pairs, faults


def unknown(source: pathlib.Path, text: str) -> errors.UserError:
  """Returns the error for a folder that holds something else than a layout."""
  names = [files.printable(name) for name in finding.names_in(source)]
  shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
  return errors.UserError(
      f"{source}: no known layout (it holds {shown or 'nothing'}); expected "
      f"{text}. Pass the folder that holds them as --source."
  )
