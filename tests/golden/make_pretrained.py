"""Makes the golden files of the conversion of pretrained weights.

Run from the root of the repository, in the environment of `make_mmseg.py` with
three more packages:

  .oracle/bin/pip install --no-deps torchvision==0.28.0 timm==1.0.31
  .oracle/bin/pip install "transformers==4.46.3"
  .oracle/bin/python tests/golden/make_pretrained.py

Writes beside itself `pretrained_names.npz`, the names and shapes in the state
dicts of published networks, and `pretrained_features.npz`, what four small
ones give for weights, statistics and images that both sides make from names.
Maps stay in PyTorch's layout.
"""

import archive
from mmseg.models import backbones
from mmseg.models import segmentors
import numpy as np
import timm
import torch
import torchvision
from torchvision.models import _utils
from torchvision.models.segmentation import deeplabv3
from torchvision.models.segmentation import fcn
import transformers

TORCHVISION = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "vgg16",
    *(f"efficientnet_b{i}" for i in range(8)),
)
TORCHVISION_SEGMENTATION = (
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
)
TIMM = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnet18d", "resnet34d", "resnet50c", "resnet50d", "resnet50s"),
    *("resnet101c", "resnet101d", "resnet101s"),
    *(f"efficientnet_b{i}" for i in range(6)),
)
BASIC = dict(hidden_sizes=[64, 128, 256, 512], layer_type="basic")
HUGGINGFACE = {
    18: dict(depths=[2, 2, 2, 2], **BASIC),
    34: dict(depths=[3, 4, 6, 3], **BASIC),
    50: dict(depths=[3, 4, 6, 3]),
    101: dict(depths=[3, 4, 23, 3]),
    152: dict(depths=[3, 8, 36, 3]),
}

# Heads of mmsegmentation's configs on PASCAL VOC.
COMMON = dict(in_channels=2048, in_index=3, channels=512)
ASPP = dict(dilations=(1, 12, 24, 36))
MMSEG_HEADS = {
    "fcn": dict(type="FCNHead", num_convs=2, concat_input=True),
    "pspnet": dict(type="PSPHead", pool_scales=(1, 2, 3, 6)),
    "deeplabv3": dict(type="ASPPHead", **ASPP),
    "deeplabv3plus": dict(
        type="DepthwiseSeparableASPPHead",
        c1_in_channels=256,
        c1_channels=48,
        **ASPP,
    ),
    "encnet": dict(
        type="EncHead",
        in_channels=(512, 1024, 2048),
        in_index=(1, 2, 3),
        num_codes=32,
        add_lateral=False,
    ),
    "emanet": dict(
        type="EMAHead",
        channels=256,
        ema_channels=512,
        num_bases=64,
        num_stages=3,
    ),
    "nonlocal": dict(type="NLHead", reduction=2),
    "danet": dict(type="DAHead", pam_channels=64),
}
AUX = dict(
    type="FCNHead",
    in_channels=1024,
    in_index=2,
    channels=256,
    num_convs=1,
    concat_input=False,
)

# No side is a multiple of a stride.
IMAGES = (1, 3, 75, 59)
NUM_CLASSES = 11  # Of CamVid.


def segmentor(backbone, depth, head):
  common = dict(num_classes=21, norm_cfg=archive.BN, align_corners=False)
  return segmentors.EncoderDecoder(
      backbone=dict(type=backbone, depth=depth, **archive.D8),
      decode_head=common | COMMON | MMSEG_HEADS[head],
      auxiliary_head=common | AUX,
  )


def networks():
  """Yields names and networks without storage."""
  for name in TORCHVISION:
    yield f"torchvision/{name}", torchvision.models.get_model(name)
  for name in TORCHVISION_SEGMENTATION:
    yield f"torchvision/{name}", torchvision.models.get_model(
        name, weights_backbone=None, aux_loss=True
    )
  for name in TIMM:
    yield f"timm/{name}", timm.create_model(name)
  for depth, kwargs in HUGGINGFACE.items():
    config = transformers.ResNetConfig(**kwargs)
    yield f"huggingface/resnet{depth}", (
        transformers.ResNetForImageClassification(config)
    )
  yield "huggingface/model50", transformers.ResNetModel(
      transformers.ResNetConfig()
  )
  for name, cls, depth in (
      ("v1c18", backbones.ResNetV1c, 18),
      ("v1c50", backbones.ResNetV1c, 50),
      ("v1c101", backbones.ResNetV1c, 101),
      ("v1d50", backbones.ResNetV1d, 50),
      ("v1d101", backbones.ResNetV1d, 101),
      ("v1b50", backbones.ResNet, 50),
  ):
    yield f"mmseg/{name}", cls(depth=depth, norm_cfg=archive.BN)
  for head in MMSEG_HEADS:
    yield f"mmseg/{head}_v1c50", segmentor("ResNetV1c", 50, head)
  yield "mmseg/deeplabv3plus_v1c101", segmentor(
      "ResNetV1c", 101, "deeplabv3plus"
  )
  yield "mmseg/pspnet_v1d50", segmentor("ResNetV1d", 50, "pspnet")


def make_names():
  with torch.device("meta"):
    names = {name: archive.shapes(net.state_dict()) for name, net in networks()}
  path = archive.HERE / "pretrained_names.npz"
  np.savez_compressed(path, **names)
  print(path.name, path.stat().st_size, "bytes")


def torchvision_deeplabv3():
  backbone = _utils.IntermediateLayerGetter(
      torchvision.models.resnet18(), {"layer4": "out", "layer3": "aux"}
  )
  return deeplabv3.DeepLabV3(
      backbone,
      deeplabv3.DeepLabHead(512, NUM_CLASSES),
      fcn.FCNHead(256, NUM_CLASSES),
  )


def make_features():
  golden = archive.Archive()
  images = archive.make("images", IMAGES)
  layers = [f"layer{i}" for i in range(1, 5)]
  cases = {
      "torchvision": (torchvision_deeplabv3(), []),
      "timm": (timm.create_model("resnet18d"), layers),
      "huggingface": (
          transformers.ResNetForImageClassification(
              transformers.ResNetConfig(**HUGGINGFACE[18])
          ),
          [f"resnet.encoder.stages.{i}" for i in range(4)],
      ),
      "mmseg": (
          backbones.ResNetV1d(depth=18, **archive.D8),
          layers,
      ),
  }
  for case, (network, modules) in cases.items():
    archive.fill(network)
    stages = []
    for name in modules:
      network.get_submodule(name).register_forward_hook(
          lambda module, args, out, stages=stages: stages.append(out)
      )
    with torch.no_grad():
      out = network(images)
    golden.add(case, tensors=archive.shapes(archive.state(network)))
    if case == "torchvision":
      golden.add(case, logits=out["out"][:, :, ::3])
    else:
      golden.add_stages(case, stages)
  golden.save("pretrained_features.npz")


if __name__ == "__main__":
  torch.manual_seed(0)
  make_names()
  make_features()
