"""Makes the golden file of the comparison of VGG16 networks with PyTorch.

The networks are written here from the published ones, out of PyTorch's own
operators: padding of 100, pooling that rounds up, transposed convolutions,
crops, several scales. ResNet-50 in the form of its first release is
mmsegmentation's. Environment as for `make_mmseg.py`; from the root of the
repository:

  .oracle/bin/python tests/golden/make_torch_vgg.py

Writes `torch_vgg.npz` beside itself.
"""

import archive
from mmseg.models import backbones
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

NUM_CLASSES = 5
BLOCKS = ((3, 2), (6, 2), (12, 3), (24, 3), (24, 3))
HIDDEN = 8

# Odd by even and even by odd; no side a multiple of 8.
SIZES = ((33, 46), (42, 35))
# Every map of it is of the size that its scales ask for.
SCALED = (64, 48)
RATES = (1, 2, 4, 6)

# Window, stride, padding, size of the map.
POOLS = (
    (2, 2, 0, (9, 12)),
    (2, 2, 0, (3, 7)),
    (3, 2, 1, (8, 11)),
    (3, 2, 1, (2, 1)),
    (3, 1, 1, (4, 5)),
    # Rounded up, a last window would begin in the padding: it is left out.
    (2, 3, 1, (7, 5)),
)
TRANSPOSED = ((2, (3, 5)), (8, (2, 3)), (32, (1, 2)))


def bilinear_kernel(stride, channels):
  """Returns the weights that FCN gives a transposed convolution."""
  size = 2 * stride
  center = stride - 0.5
  y, x = np.ogrid[:size, :size]
  kernel = (1 - abs(y - center) / stride) * (1 - abs(x - center) / stride)
  weight = np.zeros((channels, channels, size, size), np.float32)
  weight[range(channels), range(channels)] = kernel
  return torch.from_numpy(weight)


def transposed(x, stride):
  return F.conv_transpose2d(
      x, bilinear_kernel(stride, x.shape[1]), stride=stride
  )


class VGG(nn.Module):
  """The convolutions of VGG16; returns what follows each pooling."""

  def __init__(self, form):
    super().__init__()
    self.form = form
    width = 3
    for block, (channels, num) in enumerate(BLOCKS, start=1):
      for i in range(1, num + 1):
        kw = dict(padding=1)
        if form == "fcn" and (block, i) == (1, 1):
          kw = dict(padding=100)
        if form == "deeplab" and block == 5:
          kw = dict(padding=2, dilation=2)
        self.add_module(f"conv{block}_{i}", nn.Conv2d(width, channels, 3, **kw))
        width = channels
    if form == "dilated":
      self.conv_dilated = nn.Conv2d(width, width, 3, padding=2, dilation=2)

  def forward(self, x):
    maps = []
    for block, (_, num) in enumerate(BLOCKS, start=1):
      for i in range(1, num + 1):
        x = F.relu(getattr(self, f"conv{block}_{i}")(x))
      if self.form == "dilated" and block == 5:
        x = self.conv_dilated(x)
      elif self.form == "dilated":
        x = F.max_pool2d(x, 2, 2)
      elif self.form == "fcn":
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
      else:
        stride = 2 if block < 4 else 1
        x = F.max_pool2d(x, 3, stride, padding=1, ceil_mode=True)
      maps.append(x)
    return maps


class FCN(nn.Module):

  def __init__(self, form, at_once=False):
    super().__init__()
    self.form = form
    self.scales = (0.01, 0.0001) if at_once else (1, 1)
    self.backbone = VGG("dilated" if form == "dilated" else "fcn")
    padding = 3 if form == "dilated" else 0
    layers = dict(
        fc6=nn.Conv2d(BLOCKS[-1][0], HIDDEN, 7, padding=padding),
        fc7=nn.Conv2d(HIDDEN, HIDDEN, 1),
        classifier=nn.ModuleDict(dict(conv=nn.Conv2d(HIDDEN, NUM_CLASSES, 1))),
    )
    if form in ("16s", "8s"):
      layers["score_pool4"] = nn.Conv2d(BLOCKS[3][0], NUM_CLASSES, 1)
    if form == "8s":
      layers["score_pool3"] = nn.Conv2d(BLOCKS[2][0], NUM_CLASSES, 1)
    self.head = nn.ModuleDict(layers)

  def forward(self, images):
    height, width = images.shape[2:]
    maps = self.backbone(images)
    x = F.relu(self.head["fc6"](maps[4]))
    x = F.relu(self.head["fc7"](x))
    x = self.head["classifier"]["conv"](x)
    if self.form == "dilated":
      return F.interpolate(x, (height, width), mode="bilinear")
    if self.form == "32s":
      x = transposed(x, 32)
      return x[:, :, 19 : 19 + height, 19 : 19 + width]
    x = transposed(x, 2)
    pool4 = self.head["score_pool4"](self.scales[0] * maps[3])
    x = x + pool4[:, :, 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
    if self.form == "16s":
      x = transposed(x, 16)
      return x[:, :, 27 : 27 + height, 27 : 27 + width]
    x = transposed(x, 2)
    pool3 = self.head["score_pool3"](self.scales[1] * maps[2])
    x = x + pool3[:, :, 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
    x = transposed(x, 8)
    return x[:, :, 31 : 31 + height, 31 : 31 + width]


class DeepLabV2(nn.Module):
  """ASPP-L, without upsampling; with hidden layers, or without."""

  def __init__(self, hidden):
    super().__init__()
    self.hidden = hidden
    self.backbone = VGG("deeplab")
    layers = {}
    width = BLOCKS[-1][0]
    for i, rate in enumerate(RATES, start=1):
      kw = dict(padding=rate, dilation=rate)
      if hidden:
        layers[f"fc6_{i}"] = nn.Conv2d(width, HIDDEN, 3, **kw)
        layers[f"fc7_{i}"] = nn.Conv2d(HIDDEN, HIDDEN, 1)
        scores = nn.Conv2d(HIDDEN, NUM_CLASSES, 1)
        layers[f"classifier{i}"] = nn.ModuleDict(dict(conv=scores))
      else:
        layers[f"score{i}"] = nn.Conv2d(width, NUM_CLASSES, 3, **kw)
    self.head = nn.ModuleDict(layers)

  def forward(self, images):
    features = self.backbone(images)[-1]
    total = 0
    for i in range(1, len(RATES) + 1):
      if self.hidden:
        x = F.relu(self.head[f"fc6_{i}"](features))
        x = F.relu(self.head[f"fc7_{i}"](x))
        total = total + self.head[f"classifier{i}"]["conv"](x)
      else:
        total = total + self.head[f"score{i}"](features)
    return total


def make_images(size):
  return np.random.RandomState(1).randint(0, 256, (2, 3, *size), np.uint8)


def normalize(images):
  return (torch.from_numpy(images).float() - 127) / 60


def make_operators(golden):
  for window, stride, padding, size in POOLS:
    case = "pool/k{}_s{}_p{}_{}x{}".format(window, stride, padding, *size)
    # All values below -1: padding of zeros would win at the edges.
    x = archive.make(f"{case}.features", (1, 2, *size)) - 3.0
    for key, ceil_mode in (("down", False), ("up", True)):
      out = F.max_pool2d(x, window, stride, padding, ceil_mode=ceil_mode)
      golden.add(case, {key: out})
  for stride, size in TRANSPOSED:
    case = "transposed/s{}_{}x{}".format(stride, *size)
    x = archive.make(f"{case}.features", (1, 2, *size))
    golden.add(case, out=transposed(x, stride))


def make_networks(golden):
  networks = {
      "net/fcn_32s": FCN("32s"),
      "net/fcn_16s": FCN("16s"),
      "net/fcn_8s": FCN("8s"),
      "net/fcn_8s_at_once": FCN("8s", at_once=True),
      "net/fcn_dilated": FCN("dilated"),
      "net/deeplab_vgg": DeepLabV2(hidden=True),
      "net/deeplab_direct": DeepLabV2(hidden=False),
  }
  for case, network in networks.items():
    archive.fill(network)
    golden.add(case, tensors=archive.shapes(archive.state(network)))
    for i, size in enumerate(SIZES):
      images = archive.make(f"{i}.images", (1, 3, *size))
      # Every third row, to keep the file small.
      logits = network(images)[:, :, ::3]
      golden.add(case, {f"shape{i}": images.shape, f"logits{i}": logits})
      names = ("stem", "stage1", "stage2", "stage3", "stage4")
      for name, x in zip(names, network.backbone(images), strict=True):
        golden.add(f"{case}/size{i}", {name: x.shape[2:]})
  make_scales(golden, networks["net/deeplab_vgg"])


def make_scales(golden, network):
  """Adds logits at three scales, their fusion, the four losses, gradients."""
  case = "scales"
  images = make_images(SCALED)
  labels = archive.make_labels(SCALED)
  x = normalize(images)
  logits = {"scale100_logits": network(x)}
  for percent in (75, 50):
    scaled = F.interpolate(
        x, scale_factor=percent / 100, mode="bilinear", align_corners=False
    )
    logits[f"scale{percent}_logits"] = network(scaled)
  size = logits["scale100_logits"].shape[2:]
  logits["logits"] = torch.stack(
      [F.interpolate(v, size, mode="bilinear") for v in logits.values()]
  ).amax(0)
  losses = {}
  for name, v in logits.items():
    target = F.interpolate(
        torch.from_numpy(labels)[:, None].float(),
        v.shape[2:],
        mode="nearest-exact",
    )
    losses[name] = F.cross_entropy(v, target[:, 0].long(), ignore_index=255)
  sum(losses.values()).backward()
  golden.add(case, logits, images=images, labels=labels)
  golden.add(f"{case}/loss", losses)
  for name in ("backbone.conv1_2", "head.fc6_3", "head.classifier1.conv"):
    for kind in ("weight", "bias"):
      full = f"{name}.{kind}"
      golden.add(f"{case}/grad", {full: network.get_parameter(full).grad})


def make_resnet(golden):
  network = backbones.ResNet(
      depth=50,
      norm_cfg=archive.BN,
      style="caffe",
      strides=(1, 2, 1, 1),
      dilations=(1, 1, 2, 4),
  )
  network.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
  archive.fill(network)
  shape = (1, 3, 76, 59)
  with torch.no_grad():
    outputs = network(archive.make("images", shape))
  golden.add(
      "resnet", tensors=archive.shapes(archive.state(network)), images=shape
  )
  golden.add_stages("resnet", outputs, (2, 2, 2, 2))


if __name__ == "__main__":
  torch.manual_seed(0)
  golden = archive.Archive()
  make_operators(golden)
  make_networks(golden)
  make_resnet(golden)
  golden.save("torch_vgg.npz")
