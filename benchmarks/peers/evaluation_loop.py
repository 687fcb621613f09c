"""An evaluation as it is usually written with PyTorch.

Workers of a `DataLoader` read, decode and normalise; the network, upsampling,
argmax and the confusion matrix follow. A request is of the form

  {"folder": ..., "network": "r18", "num_classes": 11, "num_workers": 2, ...}

The folder has `images/` and `labels/` with files of the same stems.
"""

import pathlib
import time

import numpy as np
from PIL import Image
import torch
from torch import nn
import torch.nn.functional as F

from benchmarks.peers import answering
from benchmarks.peers import plain

IGNORE = 255


class Folder(torch.utils.data.Dataset):
  """Normalised images, float32 [3, H, W], and labels, int64 [H, W]."""

  def __init__(self, folder, mean, std):
    self.images = sorted(pathlib.Path(folder, "images").iterdir())
    self.labels = sorted(pathlib.Path(folder, "labels").iterdir())
    self.mean, self.std = (torch.tensor(x).view(3, 1, 1) for x in (mean, std))

  def __len__(self):
    return len(self.images)

  def __getitem__(self, i):
    image = np.array(Image.open(self.images[i]).convert("RGB"))
    image = torch.from_numpy(image).permute(2, 0, 1).float()
    label = np.array(Image.open(self.labels[i]), np.int64)
    return (image - self.mean) / self.std, torch.from_numpy(label)


class Block(nn.Module):

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.convs = nn.Sequential(
        plain.ConvNormAct(inputs, outputs, stride=stride),
        plain.ConvNormAct(outputs, outputs, act=None),
    )
    self.shortcut = nn.Identity()
    if (inputs, stride) != (outputs, 1):
      self.shortcut = plain.ConvNormAct(
          inputs, outputs, 1, stride=stride, act=None
      )

  def forward(self, x):
    return F.relu(self.convs(x) + self.shortcut(x), inplace=True)


def fcn_r18(num_classes):
  """ResNet-18 at output stride 32, one 3x3 convolution, a classifier."""
  layers = [plain.ConvNormAct(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
  inputs = 64
  for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
    layers += [Block(inputs, channels, stride), Block(channels, channels, 1)]
    inputs = channels
  layers += [plain.ConvNormAct(512, 128), nn.Conv2d(128, num_classes, 1)]
  return nn.Sequential(*layers)


class Nothing(nn.Module):
  """Costs nothing, so that what is timed is all but the network."""

  def __init__(self, num_classes):
    super().__init__()
    self.num_classes = num_classes

  def forward(self, x):
    return x[:, :1, ::32, ::32].expand(-1, self.num_classes, -1, -1)


NETWORKS = {"r18": fcn_r18, "none": Nothing}


@torch.inference_mode()
def evaluate(network, loader, num_classes, memory_format):
  """Returns the confusion matrix."""
  counts = torch.zeros(num_classes**2, dtype=torch.int64)
  for images, labels in loader:
    logits = network(images.contiguous(memory_format=memory_format))
    logits = F.interpolate(
        logits, labels.shape[1:], mode="bilinear", align_corners=False
    )
    predictions = logits.argmax(1)
    valid = labels != IGNORE
    cells = num_classes * labels[valid] + predictions[valid]
    counts += torch.bincount(cells, minlength=num_classes**2)
  return counts


def answer(**request):
  torch.manual_seed(0)
  num_classes = request["num_classes"]
  data = Folder(request["folder"], request["mean"], request["std"])
  loader = torch.utils.data.DataLoader(
      data, batch_size=1, num_workers=request["num_workers"]
  )
  formats = {
      "eager": torch.contiguous_format,
      "channels_last": torch.channels_last,
  }
  memory_format = formats[request["mode"]]
  network = NETWORKS[request["network"]](num_classes).eval()
  network = network.to(memory_format=memory_format)
  with torch.inference_mode():
    for _ in range(3):
      network(data[0][0][None].contiguous(memory_format=memory_format))
  start = time.perf_counter()
  counts = evaluate(network, loader, num_classes, memory_format)
  return {
      "seconds": time.perf_counter() - start,
      "pixels": int(counts.sum()),
      "parameters": sum(x.numel() for x in network.parameters()),
      "versions": {"torch": torch.__version__, "pillow": Image.__version__},
      "threads": torch.get_num_threads(),
  }


if __name__ == "__main__":
  answering.answer_requests(answer)
