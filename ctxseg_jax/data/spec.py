"""What the library has to know about a dataset, in one frozen value."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from ctxseg_jax import errors

# Whether a label is a map of classes or one class for the whole image.
TASKS = ("classification", "segmentation")


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """Facts about a dataset. None of them is a choice, so none is config.

  Attributes:
    name: The name in `DATASETS`, on the command line and on disk.
    class_names: One name per train id.
    mean: Mean RGB of the training images, 0-255; the colour of padding.
    split_sizes: Number of examples of each published split.
    builder: The `tfds.core.GeneratorBasedBuilder` that writes the dataset.
    needs_source: Whether preparing it takes a folder of the user's; if not,
      it is generated when first used.
    task: One of `TASKS`.
    palette: One RGB colour per train id, for label images and overlays; none
      where labels are no maps.
    label_map: [256] uint8, raw id -> train id or `ignore_label`. It is applied
      once, when the dataset is prepared: labels on disk are train ids. None
      where labels are no maps.
    layouts: The folder layouts that can be prepared, for error messages.
    references: Known figures to print beside a result, by their description.
    ignore_label: The label of pixels that are neither trained nor scored.
  """

  name: str
  class_names: tuple[str, ...]
  mean: tuple[float, float, float]
  split_sizes: Mapping[str, int]
  builder: Any
  needs_source: bool
  task: str = "segmentation"
  palette: tuple[tuple[int, int, int], ...] = ()
  label_map: np.ndarray | None = None
  layouts: str = ""
  references: Mapping[str, float] = dataclasses.field(default_factory=dict)
  ignore_label: int = 255

  def __post_init__(self):
    if len(set(self.class_names)) != len(self.class_names):
      raise ValueError(f"{self.name}: a class name occurs twice.")
    if self.task not in TASKS:
      raise ValueError(f"{self.name}: task {self.task!r}, not one of {TASKS}.")
    if len(self.mean) != 3 or not all(0 <= v <= 255 for v in self.mean):
      raise ValueError(f"{self.name}: mean {self.mean} is not RGB of 0-255.")
    if self.task == "segmentation":
      self._check_maps()
    elif self.palette or self.label_map is not None:
      raise ValueError(f"{self.name}: palette and label_map are for maps.")

  def _check_maps(self):
    if len(self.palette) != self.num_classes:
      raise ValueError(
          f"{self.name}: {len(self.palette)} colours for {self.num_classes} "
          "classes."
      )
    if len(set(self.palette)) != len(self.palette):
      raise ValueError(f"{self.name}: two classes share a colour.")
    if np.shape(self.palette) != (self.num_classes, 3) or not all(
        0 <= value <= 255 for color in self.palette for value in color
    ):
      raise ValueError(f"{self.name}: colours are three values of 0-255.")
    table = np.asarray(self.label_map)  # None has neither, and is told so.
    if table.shape != (256,) or table.dtype != np.uint8:
      raise ValueError(
          f"{self.name}: label_map must be uint8 [256], is "
          f"{table.dtype} {table.shape}."
      )
    # A map that skips a class or names one too many is a mistake in the table.
    targets = set(self.label_map.tolist()) - {self.ignore_label}
    if targets != set(range(self.num_classes)):
      raise ValueError(
          f"{self.name}: label_map reaches {sorted(targets)}, not the "
          f"{self.num_classes} classes."
      )

  @property
  def num_classes(self) -> int:
    """Number of classes, without the ignored one."""
    return len(self.class_names)

  def label_shape(self, image_size: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of the label of an image of (H, W)."""
    return tuple(image_size) if self.task == "segmentation" else ()

  def check_label(self, label: np.ndarray, name: str) -> None:
    """Refuses values that are no class: in JAX they would go unnoticed.

    Args:
      label: Train ids of any shape, also a single one.
      name: Of the example, for the message.

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


def label_map(raw_to_train: Mapping[int, int], ignore_label: int) -> np.ndarray:
  """Returns the [256] uint8 table of a mapping; other ids are ignored."""
  table = np.full(256, ignore_label, np.uint8)
  for raw, train in raw_to_train.items():
    table[raw] = train
  return table
