"""The options of a config's section `data` that every dataset has."""

from collections.abc import Mapping
import dataclasses
from typing import Annotated
from typing import Any

from ctxseg_jax import bounds

_Level = Annotated[float, bounds.Bounds(0, 255)]
_Spread = Annotated[float, bounds.Bounds(0, 255, open_low=True)]


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
    overlapping_splits: Whether one image of your own may be in several splits,
      to see if a network can learn them at all.
    spec: What the folder turned out to hold; written down when a run starts, so
      that its network can be used without the folder.
  """

  name: str
  data_dir: str
  train_split: str
  eval_split: str
  mean: tuple[_Level, _Level, _Level]
  std: tuple[_Spread, _Spread, _Spread]
  num_workers: Annotated[int, bounds.Bounds(0, 256)] = 0
  root: str = ""
  overlapping_splits: bool = False
  spec: Mapping[str, Any] | None = None

  def __post_init__(self):
    bounds.check_fields(self)
