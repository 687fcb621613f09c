"""Makes the golden files of the comparison with mmsegmentation and PyTorch.

Run from the root of the repository, in an environment of its own (it needs
numpy 1; any CPU build of PyTorch will do):

  python -m venv .oracle
  .oracle/bin/pip install torch mmengine mmcv-lite==2.1.0 \\
      mmsegmentation==1.2.2 ftfy regex "numpy<2"
  .oracle/bin/python tests/golden/make_mmseg.py

Writes `mmseg_backbones.npz`, `mmseg_heads.npz`, `mmseg_segmentor.npz` and
`torch_ops.npz` beside itself. Weights, running statistics and inputs come from
`mmseg_names.make_tensor` on both sides; the files hold names, shapes, labels
and what mmsegmentation computed. Arrays stay in PyTorch's layout.
"""

import json
import pathlib
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


class _NoOps(types.ModuleType):
  """Takes the place of mmcv's compiled operators, absent from mmcv-lite.

  mmsegmentation looks them up when imported; no model here calls one.
  """

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)

    def op(*unused_args, **unused_kwargs):
      raise NotImplementedError(f"mmcv-lite has no compiled operator {name}")

    return op


sys.modules["mmcv._ext"] = _NoOps("mmcv._ext")

# After the lines above, without which these do not import.
from mmengine.structures import PixelData  # noqa: E402
from mmseg.models import backbones  # noqa: E402
from mmseg.models import decode_heads  # noqa: E402
from mmseg.models import segmentors  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
import mmseg_names  # noqa: E402

NUM_CLASSES = 5
BN = dict(type="BN")
D8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
D16 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
CONTRACT = dict(contract_dilation=True)

# Even heights and odd widths; large enough for the outer taps of the largest
# dilation (stage 4 is 20 pixels high in the case with dilation 16).
SMALL = (1, 3, 88, 73)
LARGE = (1, 3, 160, 137)

# mmsegmentation's `multi_grid` holds the rates themselves: it does not
# multiply them by the dilation of the stage.
BACKBONES = {
    "r18_d8": (SMALL, dict(depth=18, **D8, **CONTRACT)),
    "r18_d8_uniform": (SMALL, dict(depth=18, **D8)),
    "r18_d16_7x7": (SMALL, dict(depth=18, deep_stem=False, **D16, **CONTRACT)),
    "r18_d16_deep64": (
        SMALL,
        dict(depth=18, stem_channels=128, **D16, **CONTRACT),
    ),
    "r50_d8": (SMALL, dict(depth=50, **D8, **CONTRACT)),
    "r50_d16": (SMALL, dict(depth=50, **D16, **CONTRACT)),
    "r50_d8_multi_grid": (
        LARGE,
        dict(depth=50, multi_grid=(4, 8, 16), **D8, **CONTRACT),
    ),
    "r50_d16_multi_grid": (
        LARGE,
        dict(depth=50, multi_grid=(2, 4, 8), **D16, **CONTRACT),
    ),
    "r101_d8": (SMALL, dict(depth=101, **D8, **CONTRACT)),
}

# Outputs of a narrow backbone, of one size as the last ones at stride 8.
STAGES = {
    "stage1": (2, 4, 9, 13),
    "stage2": (2, 12, 9, 13),
    "stage3": (2, 16, 9, 13),
    "stage4": (2, 20, 9, 13),
}
LABELS = (17, 25)
CE = dict(type="CrossEntropyLoss", avg_non_ignore=True)
HEAD = dict(
    num_classes=NUM_CLASSES,
    channels=8,
    norm_cfg=BN,
    dropout_ratio=0.0,
    loss_decode=CE,
)
ENC = dict(
    in_channels=(12, 16, 20),
    in_index=(1, 2, 3),
    num_codes=4,
    use_se_loss=True,
    **HEAD,
)
HEADS = {
    "fcn": (
        decode_heads.FCNHead,
        dict(
            in_channels=20, in_index=3, num_convs=2, concat_input=True, **HEAD
        ),
    ),
    "fcn_aux": (
        decode_heads.FCNHead,
        dict(
            in_channels=16, in_index=2, num_convs=1, concat_input=False, **HEAD
        ),
    ),
    "fcn_d6": (
        decode_heads.FCNHead,
        dict(
            in_channels=20,
            in_index=3,
            num_convs=2,
            concat_input=True,
            dilation=6,
            **HEAD,
        ),
    ),
    "encnet": (decode_heads.EncHead, dict(add_lateral=False, **ENC)),
    "encnet_lateral": (decode_heads.EncHead, dict(add_lateral=True, **ENC)),
}
TRAINED = ("fcn", "encnet_lateral")


class Archive:
  """Collects the arrays of one file."""

  def __init__(self):
    self.arrays = {}

  def add(self, case, **arrays):
    for name, x in arrays.items():
      x = x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
      assert x.dtype.kind != "f" or np.isfinite(x).all(), (case, name)
      self.arrays[f"{case}/{name}"] = x

  def save(self, name):
    path = HERE / name
    np.savez_compressed(path, **self.arrays)
    print(name, path.stat().st_size, "bytes")


def shapes(tensors):
  """Returns the shapes as JSON, without the counters of batch norms."""
  return np.array(
      json.dumps(
          {name: tuple(x.shape) for name, x in tensors.items() if x.ndim}
      )
  )


def fill(module):
  """Gives a module the weights and statistics that its names stand for."""
  state = {
      name: make(name, x.shape) if x.ndim else x
      for name, x in module.state_dict().items()
  }
  module.load_state_dict(state)
  module.train(False)


def make(name, shape):
  return torch.from_numpy(mmseg_names.make_tensor(name, tuple(shape)))


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


def samples(labels):
  return [
      SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(x[None]).long()))
      for x in labels
  ]


def running(module):
  return {
      name: x.clone()
      for name, x in module.state_dict().items()
      if name.endswith(("running_mean", "running_var"))
  }


def gradients(module):
  return {f"grad/{name}": p.grad for name, p in module.named_parameters()}


def make_backbones():
  archive = Archive()
  for case, (shape, kwargs) in BACKBONES.items():
    kwargs = dict(kwargs)
    deep = kwargs.pop("deep_stem", True)
    network = (backbones.ResNetV1c if deep else backbones.ResNet)(
        norm_cfg=BN, **kwargs
    )
    fill(network)
    with torch.no_grad():
      outputs = network(make("images", shape))
    archive.add(case, tensors=shapes(network.state_dict()), images=shape)
    for stage, x in enumerate(outputs, start=1):
      # A few whole maps, and all channels by their means.
      archive.add(
          case,
          **{
              f"stage{stage}/maps": x[
                  0, :: x.shape[1] // (2 if stage == 1 else 4)
              ],
              f"stage{stage}/means": x[0].mean((1, 2)),
          },
      )
  archive.save("mmseg_backbones.npz")


def make_heads():
  archive = Archive()
  archive.add(
      "inputs",
      labels=make_labels(LABELS),
      shapes=np.array(
          json.dumps({f"{k}.features": v for k, v in STAGES.items()})
      ),
  )
  for case, (cls, kwargs) in HEADS.items():
    head = cls(**kwargs)
    fill(head)
    inputs = [
        make(f"{k}.features", shape).requires_grad_()
        for k, shape in STAGES.items()
    ]
    archive.add(case, tensors=shapes(head.state_dict()))
    archive.add(case, **_outputs(head.forward(inputs)))
    if case in TRAINED:
      _train_head(archive, case, head, inputs)
  archive.save("mmseg_heads.npz")


def _outputs(out):
  if isinstance(out, tuple):
    return dict(logits=out[0], se_logits=out[1])
  return dict(logits=out)


def _train_head(archive, case, head, inputs):
  labels = make_labels(LABELS)
  head.train(True)
  out = head.forward(inputs)
  outputs = {f"train/{k}": x for k, x in _outputs(out).items()}
  losses = head.loss_by_feat(out, samples(labels))
  loss = losses["loss_ce"] + losses.get("loss_se", 0.0)
  loss.backward()
  # What the words say: a mean over labelled pixels, 0.2 times the SE-loss.
  target = torch.from_numpy(labels).long()
  expected = F.cross_entropy(
      F.interpolate(outputs["train/logits"], LABELS, mode="bilinear"),
      target,
      ignore_index=255,
  )
  if "loss_se" in losses:
    present = torch.stack(
        [(target == c).flatten(1).any(1) for c in range(NUM_CLASSES)], dim=1
    )
    expected += 0.2 * F.binary_cross_entropy_with_logits(
        outputs["train/se_logits"], present.float()
    )
  torch.testing.assert_close(loss, expected)
  archive.add(case, **{"train/loss": loss}, **outputs)
  archive.add(case, **{f"train/{k}": x for k, x in running(head).items()})
  archive.add(case, **gradients(head))
  archive.add(
      case,
      **{
          f"grad/{k}.features": x.grad
          for k, x in zip(STAGES, inputs, strict=True)
          if x.grad is not None
      },
  )


def make_segmentor():
  archive = Archive()
  size = (65, 97)
  labels = make_labels(size)
  for case, align_corners in (("half_pixel", False), ("aligned", True)):
    common = dict(
        num_classes=NUM_CLASSES,
        norm_cfg=BN,
        dropout_ratio=0.0,
        align_corners=align_corners,
    )
    network = segmentors.EncoderDecoder(
        backbone=dict(
            type="ResNetV1c", depth=18, norm_cfg=BN, **D8, **CONTRACT
        ),
        decode_head=dict(
            type="EncHead",
            in_channels=(128, 256, 512),
            in_index=(1, 2, 3),
            channels=16,
            num_codes=4,
            use_se_loss=True,
            add_lateral=True,
            loss_decode=CE,
            **common,
        ),
        auxiliary_head=dict(
            type="FCNHead",
            in_channels=256,
            in_index=2,
            channels=8,
            num_convs=1,
            concat_input=False,
            loss_decode=dict(loss_weight=0.4, **CE),
            **common,
        ),
    )
    fill(network)
    images = make("images", (2, 3, *size))
    metas = [dict(img_shape=size)] * 2
    with torch.no_grad():
      logits = network.encode_decode(images, metas)
      features = network.extract_feat(images)
      se_logits = network.decode_head.forward(features)[1]
    archive.add(
        case,
        tensors=shapes(network.state_dict()),
        images=images.shape,
        labels=labels,
        logits=logits[:, :, ::2],
        se_logits=se_logits,
    )
    network.train(True)
    losses = network.loss(images, samples(labels))
    losses = {k: x for k, x in losses.items() if "loss" in k}
    archive.add(case, **{f"train/{k}": x for k, x in losses.items()})
    sum(losses.values()).backward()
    names = (
        "backbone.stem.0.weight",
        "backbone.layer3.0.bn1.weight",
        "backbone.layer4.0.downsample.1.weight",
        "decode_head.lateral_convs.0.bn.bias",
        "decode_head.enc_module.encoding.0.codewords",
        "auxiliary_head.conv_seg.weight",
    )
    for name in names:
      archive.add(case, **{f"grad/{name}": network.get_parameter(name).grad})
  archive.save("mmseg_segmentor.npz")


# (h, w) to (H, W): up, down, mixed, onto itself, from one and to one sample,
# and the lengths of maps and images in use (60 to 473 along one axis).
RESIZES = (
    ((9, 13), (65, 97)),
    ((13, 9), (5, 4)),
    ((8, 5), (4, 11)),
    ((7, 7), (7, 7)),
    ((1, 5), (4, 1)),
    ((33, 20), (1, 3)),
    ((1, 60), (2, 473)),
    ((97, 1), (64, 2)),
)
POOLS = ((9, 13), (8, 12), (7, 10), (1, 2))
# Kernel, stride, dilation and size of the map.
CONVS = (
    (3, 1, 2, (9, 13)),
    (3, 1, 6, (9, 13)),
    (3, 2, 1, (8, 11)),
    (3, 2, 2, (8, 11)),
    (3, 2, 4, (12, 9)),
    (7, 2, 1, (12, 9)),
    (1, 2, 1, (8, 11)),
)


def make_ops():
  archive = Archive()
  for source, target in RESIZES:
    case = "resize/{}x{}_{}x{}".format(*source, *target)
    x = make(f"{case}.features", (1, 1, *source))
    for name, align_corners in (("half_pixel", False), ("aligned", True)):
      archive.add(
          case,
          **{
              name: F.interpolate(
                  x, target, mode="bilinear", align_corners=align_corners
              )[0, 0]
          },
      )
  for size in POOLS:
    case = "pool/{}x{}".format(*size)
    # All values below -1: padding of zeros would win at the edges.
    x = make(f"{case}.features", (1, 2, *size)) - 3.0
    archive.add(case, out=F.max_pool2d(x, 3, 2, 1))
  for kernel, stride, dilation, size in CONVS:
    case = "conv/k{}_s{}_d{}_{}x{}".format(kernel, stride, dilation, *size)
    x = make(f"{case}.features", (1, 3, *size))
    weight = make(f"{case}.weight", (4, 3, kernel, kernel))
    archive.add(
        case,
        out=F.conv2d(
            x,
            weight,
            stride=stride,
            dilation=dilation,
            padding=dilation * (kernel - 1) // 2,
        ),
    )
  archive.save("torch_ops.npz")


if __name__ == "__main__":
  torch.manual_seed(0)
  make_backbones()
  make_heads()
  make_segmentor()
  make_ops()
