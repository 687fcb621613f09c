"""Makes the golden files of the comparison of pyramid heads.

PSPNet, DeepLabV3 and DeepLabV3+ of mmsegmentation, and adaptive pooling of
PyTorch. Environment as for `make_mmseg.py`; from the root of the repository:

  .oracle/bin/python tests/golden/make_mmseg_pyramids.py

Writes `mmseg_pyramids.npz` and `torch_adaptive_pool.npz` beside itself.
"""

import json

import make_mmseg
from mmseg.models import decode_heads
import numpy as np
import torch
import torch.nn.functional as F

# A backbone's at output stride 8, narrow; four images, as the batch norms of
# pooled branches would bring two samples to -1 and 1 whatever the weights.
STAGES = {
    "stage1": (4, 4, 17, 25),
    "stage2": (4, 6, 9, 13),
    "stage3": (4, 6, 9, 13),
    "stage4": (4, 12, 9, 13),
}
LABELS = (33, 49)
HEAD = {**make_mmseg.HEAD, "in_channels": 12, "in_index": 3, "channels": 6}
# The outer taps of each dilation reach into a map of 9 x 13.
DILATIONS = (1, 2, 4, 6)
PLUS = dict(c1_in_channels=4, c1_channels=3, dilations=DILATIONS, **HEAD)
HEADS = {
    "pspnet": (decode_heads.PSPHead, HEAD),
    "pspnet_aligned": (
        decode_heads.PSPHead,
        dict(pool_scales=(1, 2, 5), align_corners=True, **HEAD),
    ),
    "deeplabv3": (decode_heads.ASPPHead, dict(dilations=DILATIONS, **HEAD)),
    "deeplabv3plus": (decode_heads.DepthwiseSeparableASPPHead, PLUS),
    "deeplabv3plus_aligned": (
        decode_heads.DepthwiseSeparableASPPHead,
        dict(align_corners=True, **PLUS),
    ),
}

# Bins and maps: bins that overlap, bins of one pixel, more bins than pixels,
# a map in use.
POOLS = (
    ((1, 1), (9, 13)),
    ((2, 2), (9, 13)),
    ((3, 3), (8, 7)),
    ((6, 6), (9, 13)),
    ((6, 6), (5, 3)),
    ((5, 7), (5, 7)),
    ((6, 1), (60, 3)),
)


def make_labels():
  labels = make_mmseg.make_labels(LABELS)
  return np.concatenate([labels, labels[:, ::-1, ::-1]])


def some(logits):
  """Returns every other row of two images, to keep the file small."""
  return logits[:2, :, ::2]


def make_heads():
  archive = make_mmseg.Archive()
  archive.add(
      "inputs",
      labels=make_labels(),
      shapes=np.array(
          json.dumps({f"{k}.features": v for k, v in STAGES.items()})
      ),
  )
  for case, (cls, kwargs) in HEADS.items():
    head = cls(**kwargs)
    make_mmseg.fill(head)
    inputs = {
        f"{k}.features": make_mmseg.make(f"{k}.features", v).requires_grad_()
        for k, v in STAGES.items()
    }
    archive.add(
        case,
        tensors=make_mmseg.shapes(head.state_dict()),
        logits=some(head.forward(list(inputs.values()))),
    )
    if not case.endswith("_aligned"):
      train(archive, case, head, inputs)
  archive.save("mmseg_pyramids.npz")


def train(archive, case, head, inputs):
  """Adds logits, loss, statistics and gradients of one step."""
  head.train(True)
  logits = head.forward(list(inputs.values()))
  loss = head.loss_by_feat(logits, make_mmseg.samples(make_labels()))["loss_ce"]
  loss.backward()
  archive.add(case, **{"train/loss": loss, "train/logits": some(logits)})
  archive.add(
      case, **{f"train/{k}": x for k, x in make_mmseg.running(head).items()}
  )
  archive.add(case, **make_mmseg.gradients(head))
  # Of one image; the others' would tell the same again.
  archive.add(
      case,
      **{
          f"grad/{k}": x.grad[:1]
          for k, x in inputs.items()
          if x.grad is not None
      },
  )


def make_pools():
  archive = make_mmseg.Archive()
  for target, source in POOLS:
    case = "{}x{}_{}x{}".format(*target, *source)
    x = make_mmseg.make(f"{case}.features", (2, 3, *source))
    archive.add(case, out=F.adaptive_avg_pool2d(x, target))
  archive.save("torch_adaptive_pool.npz")


if __name__ == "__main__":
  torch.manual_seed(0)
  make_heads()
  make_pools()
