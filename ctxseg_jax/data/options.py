"""The options of a config's section `data` that every dataset has."""

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """Where the examples are, and what the network is given of them.

  How a training example is augmented is in `data.transforms`.

  Attributes:
    name: The dataset: a name that `data.prepare --help` lists, or `custom` for
      your own.
    data_dir: Folder of all prepared datasets; `~` is your home.
    train_split: Split to train on, or a slice of one such as `train[:90%]`.
    eval_split: Split to evaluate on during training, likewise.
    mean: RGB that is subtracted from every pixel, 0 to 255; also the colour
      around an image that is smaller than the crop.
    std: RGB that every pixel is then divided by, in the units of `mean`.
    num_workers: Processes that load training examples; 0 loads them in the
      training process. The batches are the same.
    root: Your folder of images and labels, for `name="custom"` alone.
    spec: What the folder turned out to hold; written down when a run starts, so
      that its network can be used without the folder.
  """

  name: str
  data_dir: str
  train_split: str
  eval_split: str
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  num_workers: int = 0
  root: str = ""
  spec: Mapping[str, Any] | None = None

  def __post_init__(self):
    for field, is_low in (("mean", lambda v: v < 0), ("std", lambda v: v <= 0)):
      value = getattr(self, field)
      # The comparison is written so that NaN fails it.
      if len(value) != 3 or any(is_low(v) or not v <= 255 for v in value):
        raise ValueError(
            f"{field}: {value}; expected three numbers, one per RGB channel, "
            f"{'0' if field == 'mean' else 'above 0'} to 255."
        )
    if not 0 <= self.num_workers <= 256:
      raise ValueError(
          f"num_workers: {self.num_workers}; expected 0 to 256 processes."
      )
