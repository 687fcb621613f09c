"""What the makers of the golden files share.

Weights, running statistics and inputs come from `mmseg_names.make_tensor` on
both sides; the files hold names, shapes, labels and what the other project
computed. Arrays stay in PyTorch's layout.
"""

import json
import pathlib
import sys
from unittest import mock

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
# In place of compiled operators, which mmcv-lite and a CPU build of PyTorch do
# not have, and no model here calls.
for name in ("mmcv._ext", "torchvision._meta_registrations"):
  sys.modules[name] = mock.MagicMock()

import mmseg_names  # noqa: E402

NUM_CLASSES = 5
BN = dict(type="BN")
# Of ResNets.
CONTRACTED = dict(norm_cfg=BN, contract_dilation=True)
D8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **CONTRACTED)
CE = dict(type="CrossEntropyLoss", avg_non_ignore=True)


class Archive:
  """Collects the arrays of one file."""

  def __init__(self):
    self.arrays = {}

  def add(self, case, arrays=(), **others):
    for name, x in (dict(arrays) | others).items():
      x = x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
      assert x.dtype.kind != "f" or np.isfinite(x).all(), (case, name)
      self.arrays[f"{case}/{name}"] = x

  def add_stages(self, case, stages, num_maps=(4, 4, 4, 4)):
    """Adds a few whole maps, and all channels by their means."""
    for i, (x, n) in enumerate(zip(stages, num_maps, strict=True), start=1):
      maps = x[0, :: x.shape[1] // n]
      self.add(f"{case}/stage{i}", maps=maps, means=x[0].mean((1, 2)))

  def save(self, name):
    path = HERE / name
    np.savez_compressed(path, **self.arrays)
    print(name, path.stat().st_size, "bytes")


def state(module):
  """Returns everything but the counters of batch norms."""
  return {
      name: x
      for name, x in module.state_dict().items()
      if not name.endswith("num_batches_tracked")
  }


def shapes(tensors):
  """Returns their shapes as JSON."""
  return np.array(json.dumps({k: tuple(x.shape) for k, x in tensors.items()}))


def make(name, shape):
  return torch.from_numpy(
      np.asarray(mmseg_names.make_tensor(name, tuple(shape)))
  )


def fill(module):
  """Gives a module the weights and statistics that its names stand for."""
  tensors = {name: make(name, x.shape) for name, x in state(module).items()}
  module.load_state_dict(mmseg_names.sharpen(tensors), strict=False)
  module.train(False)


def make_labels(size):
  """Makes two label maps without all classes, in blocks, with ignored ones."""
  rng = np.random.RandomState(0)
  blocks = np.stack(
      [
          rng.choice((0, 1, 3, 255), size=(6, 8)),
          rng.choice((1, 2, 4), size=(6, 8)),
      ]
  )
  labels = blocks.repeat(5, axis=1).repeat(5, axis=2)
  rows = np.arange(size[0]) * labels.shape[1] // size[0]
  cols = np.arange(size[1]) * labels.shape[2] // size[1]
  return labels[:, rows][:, :, cols].astype(np.uint8)
