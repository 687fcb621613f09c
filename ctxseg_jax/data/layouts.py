"""Where published datasets keep their pairs."""

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
  """Where a split is kept; all paths are inside the folder of the layout.

  Attributes:
    images: Folder of images.
    labels: Folder of labels; None if they are not public.
    list_file: Names the images and their order; without one it is all of the
      folder, by name.
    needs_list: Whether the list has to be there.
    image_end: What file names of images have behind the id.
    label_ends: What those of labels have; of two files the first end counts.
  """

  images: str
  labels: str | None
  list_file: str = ""
  needs_list: bool = False
  image_end: str = ""
  label_ends: Sequence[str] = ("",)

  def called(self, word: str) -> "Split":
    """Returns the split whose paths have a word in place of `{}`."""
    images, labels, list_file = (
        path and path.format(word)
        for path in (self.images, self.labels, self.list_file)
    )
    return dataclasses.replace(
        self, images=images, labels=labels, list_file=list_file
    )


@dataclasses.dataclass(frozen=True)
class Layout:
  """How published files are laid out.

  Attributes:
    text: Describes it, for messages.
    inside: Where in the user's folder it may start; `""` is the folder itself.
    splits: What paths call each split.
    variants: Where the splits may be kept, with `{}` for what paths call them;
      that variant counts of which most is there, the first of equal ones.
    optional: Further splits, which a complete source may lack.
  """

  text: str
  inside: Sequence[str]
  splits: Mapping[str, str]
  variants: Sequence[Split]
  optional: Mapping[str, Split] = dataclasses.field(default_factory=dict)

  def find(self, source: pathlib.Path, *, any_size: bool) -> finding.Pairs:
    """Finds the pairs of every split; see `DatasetSpec.find`."""
    root, splits = self.locate(source)
    found, faults = {}, []
    for name, split in splits.items():
      needed = [split.list_file if split.needs_list else split.images]
      if name in self.optional and split.labels:
        needed.append(split.labels)
      is_there = all(os.path.exists(root / path) for path in needed)
      if is_there or not (any_size or name in self.optional):
        found[name], of_split = find_split(root, split)
        faults += of_split
    finding.refuse(faults + finding.shared(found))
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
      for variant in self.variants:
        splits = {name: variant.called(w) for name, w in self.splits.items()}
        paths = [
            path
            for split in splits.values()
            if os.path.isdir(root / split.labels)
            for path in (split.images, split.labels, split.list_file)
        ]
        num_there = sum(os.path.exists(root / path) for path in paths if path)
        if num_there > most:
          best, most = (root, splits | self.optional), num_there
    if best is None:
      raise unknown(source, self.text)
    return best


def find_split(
    root: pathlib.Path, split: Split
) -> tuple[list[finding.Pair], list[str]]:
  """Returns the pairs of a split, and the faults."""
  images = finding.list_folder(root / split.images, ends=(split.image_end,))
  labels = None
  if split.labels:
    labels = finding.list_folder(root / split.labels, ends=split.label_ends)
  if split.list_file and (
      split.needs_list or (root / split.list_file).is_file()
  ):
    return read_list(root / split.list_file, images, labels)
  return finding.match(images, labels)


def read_list(
    list_file: pathlib.Path, images: finding.Folder, labels: finding.Folder
) -> tuple[list[finding.Pair], list[str]]:
  """Returns the pairs of a published list in its order, and the faults.

  Only the names of files count: published lists carry the paths of their
  author's machine.
  """

  def pair_of_line(fields: list[str]) -> finding.Pair:
    names = {finding.name_of_field(f, (images, labels)) for f in fields}
    if len(names) > 1:
      raise errors.UserError(
          f"found {' '.join(fields)!r}; expected a name, or an image and a "
          "label of the same name. Mend the line."
      )
    return finding.pair_of(names.pop(), images, labels)

  return finding.read_list(list_file, pair_of_line)


def unknown(source: pathlib.Path, text: str) -> errors.UserError:
  """Returns the error for a folder that holds something else than a layout."""
  names = [files.printable(name) for name in finding.names_in(source)]
  shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
  return errors.UserError(
      f"{source}: no known layout (it holds {shown or 'nothing'}); expected "
      f"{text}. Pass the folder that holds them as --source."
  )
