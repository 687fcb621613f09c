"""Makes the golden file of the comparison of EfficientNet with timm.

Run from the root of the repository, in an environment of its own:

  python -m venv .timm
  .timm/bin/pip install timm==1.0.31
  .timm/bin/python tests/golden/make_timm.py

Writes `timm_efficientnet.npz` beside itself: what EfficientNet-B0 gives at
each output stride for weights, statistics and images that both sides make from
names. Maps stay in PyTorch's layout.
"""

import json
import pathlib
import sys

import numpy as np
import timm
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mmseg_names  # noqa: E402

# At stride 8 larger than the outer taps of a 5x5 kernel with dilation 4.
IMAGES = (1, 3, 88, 73)


def make(name, shape):
  return torch.from_numpy(mmseg_names.make_tensor(name, tuple(shape)))


def main():
  arrays = {}
  for output_stride in (8, 16, 32):
    # The published weights of the TensorFlow code have this epsilon; timm's
    # own were trained with PyTorch's.
    network = timm.create_model(
        "efficientnet_b0",
        features_only=True,
        output_stride=output_stride,
        bn_eps=1e-3,
    )
    state = {
        name: make(name, x.shape) if x.ndim else x
        for name, x in network.state_dict().items()
    }
    network.load_state_dict(state)
    network.eval()
    with torch.no_grad():
      features = network(make("images", IMAGES))
    case = f"b0_d{output_stride}"
    arrays[f"{case}/images"] = np.array(IMAGES)
    arrays[f"{case}/tensors"] = np.array(
        json.dumps({k: tuple(x.shape) for k, x in state.items() if x.ndim})
    )
    # A few whole maps, and all channels by their means.
    for stage, x in enumerate(features[1:], start=1):
      arrays[f"{case}/stage{stage}/maps"] = x[0, :: x.shape[1] // 4].numpy()
      arrays[f"{case}/stage{stage}/means"] = x[0].mean((1, 2)).numpy()
      print(case, stage, tuple(x.shape), float(x.std()))
  path = HERE / "timm_efficientnet.npz"
  np.savez_compressed(path, **arrays)
  print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
  main()
