"""Configs by name, such as "voc/sanet.py:r101", and the sizes of networks."""

import functools
import importlib
import json
import pathlib
from typing import NamedTuple

from ml_collections import config_dict

from ctxseg_jax import describe
from ctxseg_jax import errors
from ctxseg_jax import experiment

FOLDER = pathlib.Path("configs")


class Size(NamedTuple):
  """The size of a network.

  Attributes:
    parameters: Trained ones, of auxiliary heads too.
    macs: Multiply-accumulates of one forward pass on a training crop.
    crop: (H, W) of the crop.
  """

  parameters: int
  macs: int
  crop: tuple[int, int]

  def cells(self) -> str:
    """Returns two cells of a row of a table, without the bars around them."""
    height, width = self.crop
    return f"{self.parameters:,} | {self.macs / 1e9:.2f} G, {height}x{width}"


def config(name: str) -> config_dict.ConfigDict:
  """Returns a config by its path below `configs/`, with variants.

  Raises:
    UserError: There is no such file or variant.
  """
  file, _, variants = name.partition(":")
  path = FOLDER / file
  if path.suffix != ".py" or not path.is_file():
    raise errors.UserError(f"{path}: there is no such file; see configs/")
  module = importlib.import_module(".".join(path.with_suffix("").parts))
  try:
    return module.get_config(variants)
  except ValueError as e:
    raise errors.UserError(f"{path}: {e}") from e


def size(config: config_dict.ConfigDict) -> Size:
  """Returns the size of a config's network; equal ones are counted once."""
  run = experiment.parse(config)
  section = json.dumps(run.config["model"], sort_keys=True)
  return _size(section, run.spec.num_classes, tuple(config.data.crop_size))


@functools.cache
def _size(section, num_classes, crop):
  model = experiment.build_model(json.loads(section), num_classes)
  report = describe.describe(model, crop)
  return Size(report["parameters"], report["macs"], crop)
