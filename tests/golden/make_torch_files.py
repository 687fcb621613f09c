"""Makes files of weights as PyTorch and the programs around it write them.

Environment as for `make_mmseg.py`; from the root of the repository:

  .oracle/bin/python tests/golden/make_torch_files.py

Writes the files and `expected.npz`, what PyTorch has in its tensors, into
`torch_files/` beside itself.
"""

import collections
import pathlib

from mmengine.logging import HistoryBuffer
from mmengine.logging import MessageHub
import numpy as np
import torch
from torch import nn

FOLDER = pathlib.Path(__file__).parent / "torch_files"


class Net(nn.Module):
  """One layer of each kind whose state differs."""

  def __init__(self):
    super().__init__()
    self.conv = nn.Conv2d(2, 3, 3)
    self.bn = nn.BatchNorm2d(3)
    self.linear = nn.Linear(3, 4)


def make_kinds():
  """Returns tensors of every kind that is read."""
  base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5) / 7
  odd = torch.arange(11)
  return collections.OrderedDict(
      base=base,
      transposed=base.permute(2, 0, 1),
      window=base[1:, ::2, 3:],
      row=base[1, 2],
      one=base[2, 1, 1],
      parameter=nn.Parameter(base[:, 0].clone()),
      empty=torch.zeros(0, 3),
      count=torch.tensor(2**40 + 1),
      float64=base[0].double() / 3,
      float16=base[0].half(),
      bfloat16=base[0].bfloat16(),
      int32=odd.int() - 5,
      int16=odd.short() - 5,
      int8=odd.to(torch.int8) - 5,
      uint8=odd.to(torch.uint8) + 240,
      bool=odd % 3 == 0,
      # The stride of an axis of length one means nothing.
      thin=torch.as_strided(base, (1, 5), (2**62, 1), 5),
  )


def make_training():
  """Returns a network after a step, and its optimizer."""
  torch.manual_seed(0)
  net = Net()
  optimizer = torch.optim.Adam(net.parameters(), 0.01)
  x = net.bn(net.conv(torch.randn(2, 2, 5, 5)))
  net.linear(x.mean((2, 3))).sum().backward()
  optimizer.step()
  return net, optimizer


def make_mmengine(net, optimizer):
  """Returns what mmengine's runner saves, as mmsegmentation has it do."""
  hub = MessageHub.get_instance("golden")
  for step in range(3):
    hub.update_scalar("train/loss", 1.0 / (step + 1))
  hub.update_info("iter", 3)
  hub.update_info("numpy", np.float32(1.5))
  return {
      "meta": {
          "epoch": 0,
          "iter": 3,
          "cfg": "model = dict(type='EncoderDecoder')\n",
          "seed": np.int64(5),
          "time": "20250101_000000",
          "dataset_meta": {
              "classes": ("road", "sky"),
              "palette": np.array([[1, 2, 3], [4, 5, 6]], np.uint8),
          },
          "history": HistoryBuffer([1.0, 2.0], [1, 1]),
          "keys": {(1, 2): {3, 4}},
          "folder": pathlib.PurePosixPath("runs/one"),
      },
      "state_dict": net.state_dict(),
      "message_hub": hub.state_dict(),
      "optimizer": optimizer.state_dict(),
      "param_schedulers": [],
  }


def main():
  FOLDER.mkdir(exist_ok=True)
  net, optimizer = make_training()
  state = net.state_dict()
  parallel = {f"module.{k}": v for k, v in state.items()}
  average = {k: v / 2 for k, v in state.items() if v.is_floating_point()}
  expected = {
      "kinds.pth": make_kinds(),
      "plain.pth": state,
      "mmengine.pth": state,
      "encoding.pth": state,
      "timm.pth": average,
      "legacy.pth": make_kinds(),
      "legacy_mmengine.pth": state,
  }
  contents = expected | {
      "mmengine.pth": make_mmengine(net, optimizer),
      "encoding.pth": {
          "epoch": 3,
          "state_dict": parallel,
          "optimizer": optimizer.state_dict(),
          "best_pred": 0.5,
      },
      "timm.pth": {
          "arch": "net",
          "state_dict": state,
          "state_dict_ema": average,
      },
      # As mmdetection publishes: the former format, without the optimizer.
      "legacy_mmengine.pth": {
          k: v
          for k, v in make_mmengine(net, optimizer).items()
          if k in ("meta", "state_dict")
      },
      "legacy_complex.pth": {"x": torch.ones(3, dtype=torch.complex64)},
      "whole_model.pth": net,
      "quantized.pth": {
          "x": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
      },
      "sparse.pth": {"x": torch.eye(3).to_sparse()},
      "complex.pth": {"x": torch.ones(3, dtype=torch.complex64)},
      "negated.pth": {"x": torch.ones(3, dtype=torch.complex64).conj().imag},
      "float8.pth": {"x": torch.ones(3).to(torch.float8_e4m3fn)},
      "expanded.pth": {"x": torch.ones(1).expand(4)},
  }
  for name, content in contents.items():
    torch.save(
        content,
        FOLDER / name,
        _use_new_zipfile_serialization=not name.startswith("legacy"),
    )
  torch.jit.script(nn.Linear(2, 2)).save(str(FOLDER / "script.pt"))
  arrays = {}
  for name, tensors in expected.items():
    for key, tensor in tensors.items():
      if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
      arrays[f"{name}/{key}"] = tensor.detach().numpy()
  np.savez_compressed(FOLDER / "expected.npz", **arrays)


if __name__ == "__main__":
  main()
