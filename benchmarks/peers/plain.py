"""Networks in plain PyTorch, where no library at hand has them.

EncNet on a dilated ResNet, for machines without mmsegmentation; DeepLabV3+ on
EfficientNet-Lite0; the network of the quickstart. Modules are called as ours,
so that weights need no table to be carried over.
"""

import functools

import torch
from torch import nn
import torch.nn.functional as F


class ConvNormAct(nn.Module):
  """Convolution without bias, batch norm, activation.

  Padding is symmetric; if it is uneven, that of TensorFlow at stride 2.
  """

  def __init__(
      self,
      channels_in,
      channels,
      kernel_size=3,
      *,
      stride=1,
      dilation=1,
      groups=1,
      act=F.relu,
      uneven=False,
      norm=None,
  ):
    super().__init__()
    self.act, span = act, dilation * (kernel_size - 1)
    # A stride of 2 then pads by one less before an image of even size.
    self.pad = span // 2 if uneven and stride == 2 else 0
    self.conv = nn.Conv2d(
        channels_in,
        channels,
        kernel_size,
        stride,
        0 if self.pad else span // 2,
        dilation,
        groups,
        bias=False,
    )
    self.bn = nn.BatchNorm2d(channels, **norm or {})

  def forward(self, x):
    if self.pad:
      height, width = x.shape[2:]
      left, top = (self.pad - (size % 2 == 0) for size in (width, height))
      x = F.pad(x, (left, self.pad, top, self.pad))
    x = self.bn(self.conv(x))
    return x if self.act is None else self.act(x, inplace=True)


class Classifier(nn.Module):

  def __init__(self, channels, num_classes):
    super().__init__()
    self.conv = nn.Conv2d(channels, num_classes, 1)

  def forward(self, x):
    return self.conv(x)


# Backbones.


class Shallow(nn.Module):

  def __init__(self, channels=64):
    super().__init__()
    self.stem = ConvNormAct(3, channels // 2, stride=2)
    self.stage1 = ConvNormAct(channels // 2, channels, stride=2)
    self.stage2 = ConvNormAct(channels, channels)
    self.stage3 = ConvNormAct(channels, channels, dilation=2)
    self.stage4 = ConvNormAct(channels, channels)

  def forward(self, x):
    for stage in self.children():
      x = stage(x)
    return {"stage4": x}


class Bottleneck(nn.Module):

  def __init__(self, channels_in, channels, stride, dilation):
    super().__init__()
    out, no_act = 4 * channels, dict(act=None)
    self.conv1 = ConvNormAct(channels_in, channels, 1)
    where = dict(stride=stride, dilation=dilation)
    self.conv2 = ConvNormAct(channels, channels, **where)
    self.conv3 = ConvNormAct(channels, out, 1, **no_act)
    if channels_in != out:
      self.shortcut = ConvNormAct(channels_in, out, 1, stride=stride, **no_act)

  def forward(self, x):
    shortcut = self.shortcut(x) if hasattr(self, "shortcut") else x
    x = self.conv3(self.conv2(self.conv1(x)))
    return F.relu(x + shortcut, inplace=True)


class ResNet(nn.Module):
  """At output stride 8 with a stem of three convolutions (ResNetV1c)."""

  SIZES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
  # The stride of each stage, the dilation of its first block and the others.
  PLAN = ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4))

  def __init__(self, depth):
    super().__init__()
    self.stem_conv1 = ConvNormAct(3, 32, stride=2)
    self.stem_conv2 = ConvNormAct(32, 32)
    self.stem_conv3 = ConvNormAct(32, 64)
    width_in = 64
    self.names = []
    plans = zip(self.SIZES[depth], self.PLAN, strict=True)
    for stage, (size, (stride, first, rest)) in enumerate(plans, start=1):
      width = 32 * 2**stage
      self.names.append([f"stage{stage}_block{i}" for i in range(1, size + 1)])
      for name in self.names[-1]:
        block = Bottleneck(width_in, width, stride, first)
        self.add_module(name, block)
        width_in, stride, first = 4 * width, 1, rest

  def forward(self, x):
    x = self.stem_conv3(self.stem_conv2(self.stem_conv1(x)))
    x = F.max_pool2d(x, 3, 2, 1)
    features = {}
    for stage, names in enumerate(self.names, start=1):
      for name in names:
        x = getattr(self, name)(x)
      features[f"stage{stage}"] = x
    return features


class MBConv(nn.Module):

  def __init__(
      self, channels_in, channels, expansion, kernel_size, stride, dilation
  ):
    super().__init__()
    kw = dict(norm=dict(eps=1e-3, momentum=0.01))
    width = expansion * channels_in
    if expansion > 1:
      self.expand = ConvNormAct(channels_in, width, 1, act=F.relu6, **kw)
    self.depthwise = ConvNormAct(
        width,
        width,
        kernel_size,
        stride=stride,
        dilation=dilation,
        groups=width,
        act=F.relu6,
        uneven=True,
        **kw,
    )
    self.project = ConvNormAct(width, channels, 1, act=None, **kw)

  def forward(self, x):
    y = self.expand(x) if hasattr(self, "expand") else x
    y = self.project(self.depthwise(y))
    return x + y if x.shape == y.shape else y


class Lite0(nn.Module):
  """EfficientNet-Lite0 at output stride 16."""

  # Expansion, channels, blocks, stride, kernel, dilation of the first block
  # and of the others.
  GROUPS = (
      (1, 16, 1, 1, 3, 1, 1),
      (6, 24, 2, 2, 3, 1, 1),
      (6, 40, 2, 2, 5, 1, 1),
      (6, 80, 3, 2, 3, 1, 1),
      (6, 112, 3, 1, 5, 1, 1),
      (6, 192, 4, 1, 5, 1, 2),
      (6, 320, 1, 1, 3, 2, 2),
  )
  STAGES = {"group2_block2": "stage1", "group7_block1": "stage4"}

  def __init__(self):
    super().__init__()
    norm = dict(eps=1e-3, momentum=0.01)
    self.stem = ConvNormAct(
        3, 32, stride=2, act=F.relu6, uneven=True, norm=norm
    )
    width = 32
    for g, group in enumerate(self.GROUPS, start=1):
      expansion, channels, blocks, stride, kernel, dilation, rest = group
      for k in range(1, blocks + 1):
        block = MBConv(width, channels, expansion, kernel, stride, dilation)
        self.add_module(f"group{g}_block{k}", block)
        width, stride, dilation = channels, 1, rest

  def forward(self, x):
    features = {}
    for name, block in self.named_children():
      x = block(x)
      if name in self.STAGES:
        features[self.STAGES[name]] = x
    return features


# Heads.


class Encoding(nn.Module):

  def __init__(self, channels, num_codewords):
    super().__init__()
    bound = (num_codewords * channels) ** -0.5
    self.project = ConvNormAct(channels, channels, 1)
    codewords = torch.empty(num_codewords, channels).uniform_(-bound, bound)
    self.codewords = nn.Parameter(codewords)
    self.scale = nn.Parameter(torch.empty(num_codewords).uniform_(-1, 0))
    self.bn = nn.BatchNorm1d(num_codewords)

  def forward(self, x):
    x = self.project(x).flatten(2).transpose(1, 2).float()
    # Half precision would cancel: |x|^2 - 2 x.d + |d|^2 in float32.
    with torch.autocast(x.device.type, enabled=False):
      distances = x.square().sum(-1, keepdim=True)
      distances = distances - 2 * x @ self.codewords.T
      distances = distances + self.codewords.square().sum(-1)
      assignments = torch.softmax(self.scale * distances, -1)
      encoded = assignments.transpose(1, 2) @ x
      encoded = encoded - assignments.sum(1)[..., None] * self.codewords
      return F.relu(self.bn(encoded)).mean(1)


class EncHead(nn.Module):

  def __init__(self, channels_in, channels, num_classes, num_codewords=32):
    super().__init__()
    self.reduce = ConvNormAct(channels_in, channels)
    self.encoding = Encoding(channels, num_codewords)
    self.gate = nn.Linear(channels, channels)
    self.se = nn.Linear(channels, num_classes)
    self.classifier = Classifier(channels, num_classes)

  def forward(self, features):
    x = self.reduce(features["stage4"])
    encoded = self.encoding(x)
    gate = torch.sigmoid(self.gate(encoded))[..., None, None]
    logits = self.classifier(F.relu(x + x * gate))
    return {"logits": logits, "se_logits": self.se(encoded)}


class FCNHead(nn.Module):
  """The usual auxiliary head."""

  def __init__(self, channels_in, channels, num_classes):
    super().__init__()
    self.conv1 = ConvNormAct(channels_in, channels)
    self.classifier = Classifier(channels, num_classes)

  def forward(self, features):
    return {"logits": self.classifier(self.conv1(features["stage3"]))}


class ASPP(nn.Module):

  def __init__(self, channels_in, channels, rates):
    super().__init__()
    self.image_pool = ConvNormAct(channels_in, channels, 1)
    self.conv = ConvNormAct(channels_in, channels, 1)
    self.branches = [f"atrous{i + 1}" for i in range(len(rates))]
    for name, rate in zip(self.branches, rates, strict=True):
      self.add_module(name, ConvNormAct(channels_in, channels, dilation=rate))
    self.project = ConvNormAct((2 + len(rates)) * channels, channels, 1)

  def forward(self, x):
    mean = self.image_pool(x.mean((2, 3), keepdim=True))
    maps = [mean.expand(-1, -1, *x.shape[2:]), self.conv(x)]
    maps += [getattr(self, name)(x) for name in self.branches]
    return self.project(torch.cat(maps, 1))


class DeepLabV3PlusHead(nn.Module):

  def __init__(
      self, channels_in, low_in, num_classes, channels=128, low=32, rates=()
  ):
    super().__init__()
    self.aspp = ASPP(channels_in, channels, rates)
    self.low = ConvNormAct(low_in, low, 1)
    self.decoder1 = ConvNormAct(channels + low, channels)
    self.decoder2 = ConvNormAct(channels, channels)
    self.classifier = Classifier(channels, num_classes)

  def forward(self, features):
    low = self.low(features["stage1"])
    x = self.aspp(features["stage4"])
    x = F.interpolate(x, low.shape[2:], mode="bilinear", align_corners=False)
    x = self.decoder2(self.decoder1(torch.cat([x, low], 1)))
    return {"logits": self.classifier(x)}


class Network(nn.Module):
  """A backbone, a head, sometimes an auxiliary one; returns maps by name."""

  def __init__(self, backbone, head, aux_head=None):
    super().__init__()
    self.backbone, self.head = backbone, head
    if aux_head is not None:
      self.aux_head = aux_head

  def forward(self, x):
    features = self.backbone(x)
    out = self.head(features)
    if self.training and hasattr(self, "aux_head"):
      out["aux_logits"] = self.aux_head(features)["logits"]
    return out


def _encnet(depth, num_classes):
  head, aux = EncHead(2048, 512, num_classes), FCNHead(1024, 256, num_classes)
  return Network(ResNet(depth), head, aux)


def _lite(num_classes):
  rates = dict(rates=(3, 6, 9))
  return Network(Lite0(), DeepLabV3PlusHead(320, 24, num_classes, **rates))


def _quickstart(num_classes):
  return Network(Shallow(), EncHead(64, 64, num_classes))


# A function of the number of classes by the name of the network.
NETWORKS = {
    "encnet_r50": functools.partial(_encnet, 50),
    "encnet_r101": functools.partial(_encnet, 101),
    "deeplabv3plus_lite0": _lite,
    "quickstart": _quickstart,
}
