"""What the library has to know about a dataset, in one frozen value."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from ctxseg_jax import errors

# Whether a label is a map of classes or one class for the whole image.
TASKS = ("classification", "segmentation")

# The mean of ImageNet's training images, which most published recipes use in
# place of the dataset's own.
IMAGENET_MEAN = (123.675, 116.28, 103.53)

_NUM_LISTED = 8  # Values in a message that must stay one line.


class UnknownValuesError(errors.UserError):
  """A label holds ids that no table knows."""

  def __init__(
      self,
      message: str,
      known: np.ndarray,
      unknown: Mapping[int | tuple[int, int, int], int],
  ):
    super().__init__(message)
    self.known = known  # int64 [256], pixels by train id or `ignore_label`.
    self.unknown = unknown  # Pixels by unknown id or colour.


@dataclasses.dataclass(frozen=True)
class Example:
  """What is stored of an example."""

  name: str  # Unique in the split.
  image: bytes  # JPEG or PNG.
  label: np.ndarray  # uint8 train ids, [H, W], or [] for an image of one class.


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """Facts about a dataset. None of them is a choice, so none is config.

  Attributes:
    name: The name in `DATASETS`, on the command line and on disk.
    class_names: One name per train id.
    split_sizes: Number of examples of each published split; None where that
      is not one number.
    find: `(source, *, any_size)` -> what `read` needs of each example, by
      split, in the order of its list or else by name. `source` is the user's
      folder, in one of `layouts`, or None without `needs_source`; with
      `any_size` a split may be missing or incomplete. A `UserError` says that
      the layout is unknown, a file missing or an id there twice.
    read: `(spec, item)` -> the `Example` of an item of `find`, checked.
    mean: Mean RGB of the training images, 0-255; the colour of padding.
    needs_source: Whether preparing it takes a folder of the user's; if not,
      it is generated when first used.
    task: One of `TASKS`.
    palette: One RGB colour per train id, for label images and overlays; none
      where labels are no maps.
    label_map: [256] uint8, raw id -> train id or `ignore_label`, applied once,
      when the dataset is prepared; [65536] where labels may have 16 bits. None
      where labels are no maps.
    submission_ids: What the dataset's server calls each train id; none where
      there is no server.
    description: Of the dataset, stored with it.
    layouts: The folder layouts that can be prepared, for error messages.
    void_ids: The raw ids that are ignored on purpose. Any other id that is no
      class is a mistake in the files.
    optional_splits: Splits that a complete source may lack.
    variant_sizes: Sizes of splits in a second edition in use, where there is
      one; they count as complete, too.
    remedy: What to do about a label of other values.
    references: Known figures to print beside a result, by split and name.
    extra_figures: Figures that results on it are compared by as well, names of
      `evaluation.metrics.EXTRA_FIGURES`.
    ignore_label: The label of pixels that are neither trained nor scored.
    is_own: Whether it is a user's own, to be held against `data.rules`.
    colors: Of a user's own, ids by the RGB colours that labels may have.
    values: Of a user's own, what `classes.Classes.values` says of gray labels.
    overlapping_splits: Of a user's own, whether one image may be in several.
    notes: Of a user's own, lines on how its folder was understood.
  """

  name: str
  class_names: tuple[str, ...]
  split_sizes: Mapping[str, int | None]
  find: Callable[..., Mapping[str, Sequence[Any]]]
  read: Callable[["DatasetSpec", Any], Example]
  mean: tuple[float, float, float] = IMAGENET_MEAN
  needs_source: bool = True
  task: str = "segmentation"
  palette: tuple[tuple[int, int, int], ...] = ()
  label_map: np.ndarray | None = None
  submission_ids: tuple[int, ...] = ()
  description: str = ""
  layouts: str = ""
  void_ids: tuple[int, ...] = ()
  optional_splits: tuple[str, ...] = ()
  variant_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
  remedy: str = "Use the labels as published, not remapped ones."
  references: Mapping[str, Mapping[str, float]] = dataclasses.field(
      default_factory=dict
  )
  extra_figures: tuple[str, ...] = ()
  ignore_label: int = 255
  is_own: bool = False
  colors: Mapping[tuple[int, int, int], int] = dataclasses.field(
      default_factory=dict
  )
  values: tuple[tuple[int, int, int], ...] = ()
  overlapping_splits: bool = False
  notes: Sequence[str] = ()

  def __post_init__(self):
    for problem in self._problems():
      raise ValueError(f"{self.name}: {problem}.")

  def _problems(self) -> Iterator[str]:
    if len(set(self.class_names)) != len(self.class_names):
      yield "a class name occurs twice"
    if not set(self.colors.values()) <= set(range(256)):
      yield "a colour of no id from 0 to 255"
    if self.task not in TASKS:
      yield f"task {self.task!r}, not one of {TASKS}"
    if not {*self.optional_splits, *self.variant_sizes} <= {*self.split_sizes}:
      yield "a split has no size"
    if len(self.mean) != 3 or not all(0 <= v <= 255 for v in self.mean):
      yield f"mean {self.mean} is not RGB of 0-255"
    if self.task == "segmentation":
      yield from self._problems_of_maps()
    elif self.palette or self.label_map is not None:
      yield "palette and label_map are for maps"

  def _problems_of_maps(self) -> Iterator[str]:
    num_classes = self.num_classes
    if len(self.palette) != num_classes:
      yield f"{len(self.palette)} colours for {num_classes} classes"
    # Two classes may share a colour: those of published palettes do.
    palette = np.array(self.palette)
    if (
        palette.shape != (num_classes, 3)
        or not np.isin(palette, range(256)).all()
    ):
      yield "colours are three values of 0-255"
    table = np.asarray(self.label_map)  # None has neither.
    if table.shape not in ((256,), (65536,)) or table.dtype != np.uint8:
      yield f"label_map must be uint8 [256], is {table.dtype} {table.shape}"
    # A map that skips a class or names one too many is a mistake in the table.
    targets = set(table.tolist()) - {self.ignore_label}
    if targets != set(range(num_classes)):
      yield f"label_map reaches {sorted(targets)}, not {num_classes} classes"
    if self.submission_ids and len(self.submission_ids) != num_classes:
      yield "not one submission id per class"
    if (table[list(self.void_ids)] != self.ignore_label).any():
      yield "a void id is mapped to a class"

  @property
  def num_classes(self) -> int:
    """Number of classes, without the ignored one."""
    return len(self.class_names)

  def label_shape(self, image_size: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of the label of an image of (H, W)."""
    return tuple(image_size) if self.task == "segmentation" else ()

  def map_label(self, raw: np.ndarray, place: str) -> np.ndarray:
    """Maps raw ids of any shape to train ids and `ignore_label`, uint8.

    Raises:
      UnknownValuesError: Names the file, `place`, each id that no table knows
        and how many pixels have it.
    """
    classes = np.flatnonzero(self.label_map != self.ignore_label).tolist()
    known = np.zeros(len(self.label_map), bool)
    known[[*classes, *self.void_ids]] = True
    counts = np.bincount(raw.ravel(), minlength=len(known))
    unknown = np.where(known, 0, counts)
    if not unknown.any():
      # `take` is several times as fast as indexing for tables of bytes.
      return np.take(self.label_map, raw)
    ids = np.flatnonzero(unknown)
    found = ", ".join(f"{i} ({counts[i]} pixels)" for i in ids[:_NUM_LISTED])
    if len(ids) > _NUM_LISTED:
      found += f" and {len(ids) - _NUM_LISTED} more"
    void = f" and {ranges(self.void_ids)} for pixels without one"
    raise UnknownValuesError(
        f"{place}: label value {found}; expected {ranges(classes)} for the "
        f"classes{void if self.void_ids else ''}. {self.remedy}",
        np.bincount(self.label_map[raw[known[raw]]], minlength=256),
        {int(i): int(counts[i]) for i in ids},
    )

  def check_label(self, label: np.ndarray, name: str) -> None:
    """Refuses values that are no class: in JAX they would go unnoticed.

    Raises:
      UserError: Names the example, the value and how many pixels have it.
    """
    label = np.asarray(label)
    wrong = label[(label >= self.num_classes) & (label != self.ignore_label)]
    if wrong.size:
      extent = f" in {wrong.size} pixels" if label.ndim else ""
      raise errors.UserError(
          f"{self.name}, {name}: label {int(wrong[0])}{extent}, expected 0 to"
          f" {self.num_classes - 1} or {self.ignore_label};"
          " prepare the data set again"
      )


def label_map(
    raw_to_train: Mapping[int, int], ignore_label: int = 255
) -> np.ndarray:
  """Returns the [256] uint8 table of a mapping; other ids are ignored."""
  table = np.full(256, ignore_label, np.uint8)
  for raw, train in raw_to_train.items():
    table[raw] = train
  return table


def identity_map(num_classes: int) -> np.ndarray:
  """Returns the `label_map` of labels that hold train ids already."""
  return label_map({i: i for i in range(num_classes)})


def ranges(ids: Iterable[int]) -> str:
  """Returns ids as text, such as `0-3, 7`."""
  parts = []
  # Consecutive ids have the same distance to their position.
  for _, run in itertools.groupby(
      enumerate(sorted(ids)), key=lambda pair: pair[1] - pair[0]
  ):
    run = [i for _, i in run]
    parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
  return ", ".join(parts)
