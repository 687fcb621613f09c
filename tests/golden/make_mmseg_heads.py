"""Makes the golden files of the comparison of heads with mmsegmentation.

Environment as for `make_mmseg.py`; from the root of the repository:

  .oracle/bin/python tests/golden/make_mmseg_heads.py

Writes `mmseg_heads.npz`, `mmseg_pyramids.npz` and `mmseg_attention.npz` beside
itself. Unlike at initialisation, no attention block is the identity.
"""

import archive
from make_mmseg import samples
from mmseg.models import decode_heads
import numpy as np
import torch
import torch.nn.functional as F

HEAD = dict(
    num_classes=archive.NUM_CLASSES,
    in_channels=20,
    in_index=3,
    channels=8,
    norm_cfg=archive.BN,
    dropout_ratio=0.0,
    loss_decode=archive.CE,
)

# Outputs of a narrow backbone, of one size as the last ones at stride 8.
STAGES = {
    "stage1": (2, 4, 9, 13),
    "stage2": (2, 12, 9, 13),
    "stage3": (2, 16, 9, 13),
    "stage4": (2, 20, 9, 13),
}
TWO_CONVS = HEAD | dict(num_convs=2, concat_input=True)
ONE_CONV = HEAD | dict(
    in_channels=16, in_index=2, num_convs=1, concat_input=False
)
ENC = HEAD | dict(
    in_channels=(12, 16, 20),
    in_index=(1, 2, 3),
    num_codes=4,
    use_se_loss=True,
)
HEADS = {
    "fcn": (decode_heads.FCNHead, TWO_CONVS),
    "fcn_aux": (decode_heads.FCNHead, ONE_CONV),
    "fcn_d6": (decode_heads.FCNHead, dict(dilation=6, **TWO_CONVS)),
    "encnet": (decode_heads.EncHead, dict(add_lateral=False, **ENC)),
    "encnet_lateral": (decode_heads.EncHead, dict(add_lateral=True, **ENC)),
}

# Stage 1 at stride 4; four images, as the batch norms of pooled branches would
# bring two samples to -1 and 1 whatever the weights.
PYRAMID_STAGES = {
    "stage1": (4, 4, 17, 25),
    "stage2": (4, 6, 9, 13),
    "stage3": (4, 6, 9, 13),
    "stage4": (4, 12, 9, 13),
}
PSP = HEAD | dict(in_channels=12, channels=6)
# The outer taps of each dilation reach into a map of 9 x 13.
ASPP = dict(dilations=(1, 2, 4, 6), **PSP)
PLUS = dict(c1_in_channels=4, c1_channels=3, **ASPP)
PYRAMIDS = {
    "pspnet": (decode_heads.PSPHead, PSP),
    "pspnet_aligned": (
        decode_heads.PSPHead,
        dict(pool_scales=(1, 2, 5), align_corners=True, **PSP),
    ),
    "deeplabv3": (decode_heads.ASPPHead, ASPP),
    "deeplabv3plus": (decode_heads.DepthwiseSeparableASPPHead, PLUS),
    "deeplabv3plus_aligned": (
        decode_heads.DepthwiseSeparableASPPHead,
        dict(align_corners=True, **PLUS),
    ),
}

ONE_STAGE = HEAD | dict(in_channels=12, in_index=0)
EMA = dict(ema_channels=16, num_bases=6, num_stages=3)
ATTENTION = {
    "nonlocal": (decode_heads.NLHead, ONE_STAGE),
    "danet": (decode_heads.DAHead, dict(pam_channels=4, **ONE_STAGE)),
    "emanet": (decode_heads.EMAHead, EMA | ONE_STAGE),
}

# Features, size of the labels, heads.
FILES = {
    "mmseg_heads.npz": (STAGES, (17, 25), HEADS),
    "mmseg_pyramids.npz": (PYRAMID_STAGES, (33, 49), PYRAMIDS),
    "mmseg_attention.npz": ({"stage4": (2, 12, 7, 9)}, (13, 17), ATTENTION),
}
NOT_TRAINED = (
    "fcn_aux",
    "fcn_d6",
    "encnet",
    "pspnet_aligned",
    "deeplabv3plus_aligned",
)


def name_outputs(out):
  out = out if isinstance(out, tuple) else (out,)
  others = ("position_logits", "channel_logits")
  if len(out) == 2:
    others = ("se_logits",)
  return dict(zip(("logits", *others), out, strict=False))


def to_keep(out):
  """Returns named outputs; of four images every other row of two."""
  return {
      name: x[:2, :, ::2] if len(x) > 2 else x
      for name, x in name_outputs(out).items()
  }


def make_file(file, stages, size, heads):
  golden = archive.Archive()
  labels = archive.make_labels(size)
  if stages["stage4"][0] > 2:
    labels = np.concatenate([labels, labels[:, ::-1, ::-1]])
  features = {
      f"{stage}.features": archive.make(f"{stage}.features", shape)
      for stage, shape in stages.items()
  }
  golden.add("inputs", labels=labels, shapes=archive.shapes(features))
  for case, (cls, kwargs) in heads.items():
    head = cls(**kwargs)
    archive.fill(head)
    inputs = {k: x.clone().requires_grad_() for k, x in features.items()}
    out = head.forward(list(inputs.values()))
    golden.add(case, to_keep(out), tensors=archive.shapes(archive.state(head)))
    if case not in NOT_TRAINED:
      train(golden, case, head, inputs, labels)
  golden.save(file)


def train(golden, case, head, inputs, labels):
  """Adds outputs, loss, statistics, bases and gradients of one step."""
  head.train(True)
  out = head.forward(list(inputs.values()))
  losses = head.loss_by_feat(out, samples(labels))
  loss = sum(x for name, x in losses.items() if "loss" in name)
  loss.backward()
  torch.testing.assert_close(loss, described_loss(out, labels))
  trained = dict(head.named_parameters())
  others = {k: x for k, x in archive.state(head).items() if k not in trained}
  golden.add(f"{case}/train", to_keep(out) | others, loss=loss)
  golden.add(f"{case}/grad", gradients(trained))
  # Of four images the first: the others' would tell the same again.
  read = {k: x[:1] if len(x) > 2 else x for k, x in gradients(inputs).items()}
  golden.add(f"{case}/grad", read)


def gradients(tensors):
  return {k: x.grad for k, x in tensors.items() if x.grad is not None}


def described_loss(out, labels):
  """Returns the means over labelled pixels, and 0.2 times the SE-loss."""
  target = torch.from_numpy(labels).long()
  total = 0.0
  for name, x in name_outputs(out).items():
    if name == "se_logits":
      classes = torch.arange(x.shape[1])
      present = (target[..., None] == classes).any((1, 2))
      total += 0.2 * F.binary_cross_entropy_with_logits(x, present.float())
    else:
      x = F.interpolate(x, labels.shape[1:], mode="bilinear")
      total += F.cross_entropy(x, target, ignore_index=255)
  return total


if __name__ == "__main__":
  torch.manual_seed(0)
  for file, case in FILES.items():
    make_file(file, *case)
