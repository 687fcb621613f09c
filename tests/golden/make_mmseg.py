"""Makes the golden files of backbones and of a whole network.

Run from the root of the repository, in an environment of its own (it needs
numpy 1; any CPU build of PyTorch will do):

  python -m venv .oracle
  .oracle/bin/pip install torch mmengine mmcv-lite==2.1.0 \\
      mmsegmentation==1.2.2 ftfy regex "numpy<2"
  .oracle/bin/python tests/golden/make_mmseg.py

Writes `mmseg_backbones.npz` and `mmseg_segmentor.npz` beside itself.
"""

import archive
from mmengine.structures import PixelData
from mmseg.models import backbones
from mmseg.models import segmentors
from mmseg.structures import SegDataSample
import torch

D8 = archive.D8
D16 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), **archive.CONTRACTED)

# Even heights and odd widths; large enough for the outer taps of the largest
# dilation (stage 4 is 20 pixels high in the case with dilation 16).
SMALL = (1, 3, 88, 73)
LARGE = (1, 3, 160, 137)

# mmsegmentation's `multi_grid` holds the rates themselves: it does not
# multiply them by the dilation of the stage.
BACKBONES = {
    "r18_d8": (SMALL, dict(depth=18, **D8)),
    "r18_d8_uniform": (SMALL, D8 | dict(depth=18, contract_dilation=False)),
    "r18_d16_7x7": (SMALL, dict(depth=18, deep_stem=False, **D16)),
    "r18_d16_deep64": (SMALL, dict(depth=18, stem_channels=128, **D16)),
    "r50_d8": (SMALL, dict(depth=50, **D8)),
    "r50_d16": (SMALL, dict(depth=50, **D16)),
    "r50_d8_multi_grid": (LARGE, dict(depth=50, multi_grid=(4, 8, 16), **D8)),
    "r50_d16_multi_grid": (LARGE, dict(depth=50, multi_grid=(2, 4, 8), **D16)),
    "r101_d8": (SMALL, dict(depth=101, **D8)),
}


def make_backbones():
  golden = archive.Archive()
  for case, (shape, kwargs) in BACKBONES.items():
    # ResNetV1c, unless it says otherwise.
    network = backbones.ResNet(**dict(deep_stem=True) | kwargs)
    archive.fill(network)
    with torch.no_grad():
      outputs = network(archive.make("images", shape))
    golden.add(
        case, tensors=archive.shapes(archive.state(network)), images=shape
    )
    golden.add_stages(case, outputs, (2, 4, 4, 4))
  golden.save("mmseg_backbones.npz")


def samples(labels):
  return [
      SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(x[None]).long()))
      for x in labels
  ]


def make_segmentor():
  golden = archive.Archive()
  size = (65, 97)
  labels = archive.make_labels(size)
  for case, align_corners in (("half_pixel", False), ("aligned", True)):
    common = dict(
        num_classes=archive.NUM_CLASSES,
        norm_cfg=archive.BN,
        dropout_ratio=0.0,
        align_corners=align_corners,
    )
    network = segmentors.EncoderDecoder(
        backbone=dict(type="ResNetV1c", depth=18, **D8),
        decode_head=dict(
            type="EncHead",
            in_channels=(128, 256, 512),
            in_index=(1, 2, 3),
            channels=16,
            num_codes=4,
            use_se_loss=True,
            add_lateral=True,
            loss_decode=archive.CE,
            **common,
        ),
        auxiliary_head=dict(
            type="FCNHead",
            in_channels=256,
            in_index=2,
            channels=8,
            num_convs=1,
            concat_input=False,
            loss_decode=dict(loss_weight=0.4, **archive.CE),
            **common,
        ),
    )
    archive.fill(network)
    images = archive.make("images", (2, 3, *size))
    metas = [dict(img_shape=size)] * 2
    with torch.no_grad():
      logits = network.encode_decode(images, metas)
      features = network.extract_feat(images)
      se_logits = network.decode_head.forward(features)[1]
    golden.add(
        case,
        tensors=archive.shapes(archive.state(network)),
        images=images.shape,
        labels=labels,
        logits=logits[:, :, ::2],
        se_logits=se_logits,
    )
    network.train(True)
    losses = network.loss(images, samples(labels))
    losses = {k: x for k, x in losses.items() if "loss" in k}
    golden.add(f"{case}/train", losses)
    sum(losses.values()).backward()
    for name in (
        "backbone.stem.0.weight",
        "backbone.layer3.0.bn1.weight",
        "backbone.layer4.0.downsample.1.weight",
        "decode_head.lateral_convs.0.bn.bias",
        "decode_head.enc_module.encoding.0.codewords",
        "auxiliary_head.conv_seg.weight",
    ):
      golden.add(f"{case}/grad", {name: network.get_parameter(name).grad})
  golden.save("mmseg_segmentor.npz")


if __name__ == "__main__":
  torch.manual_seed(0)
  make_backbones()
  make_segmentor()
