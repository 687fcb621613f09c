"""What tasks do differently. Steps, loop, checkpoints and resume are shared."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Task:
  """How examples are made and results are scored and shown.

  Attributes:
    augmentation: Class of what is done to training examples.
    data_keys: Its fields that `config.data` sets.
    settings: Class of how predictions are made; `config.eval` sets its fields.
    make_predictor: Of a resolved config, a model, a mesh and settings.
    protocols: The rules of scoring to choose from, the default first; none if
      there is only one.
    scores: Of a confusion matrix [C, C] and a protocol (None without a choice)
      to named figures.
    score: The figure that the best checkpoint has the highest of, a fraction.
    score_title: How curves call it.
    logged: The figures that go to TensorBoard.
    headline: Says the main figures of a report in a few words.
    table: Formats the figures per class.
    picture: Shows an image with label, prediction and the `DatasetSpec`.
    write: Writes predictions of a user's own images; see `predictions`.
  """

  augmentation: Callable[..., Any]
  data_keys: tuple[str, ...]
  settings: type[Any]
  make_predictor: Callable[..., Any]
  protocols: tuple[str, ...]
  scores: Callable[[np.ndarray, str | None], dict[str, Any]]
  score: str
  score_title: str
  logged: tuple[str, ...]
  headline: Callable[[Mapping[str, Any]], str]
  table: Callable[[Mapping[str, Any]], str]
  picture: Callable[..., np.ndarray]
  write: Callable[..., int]
