"""Makes the golden file of the comparison of attention heads.

Run like `make_mmseg.py`, whose environment and pieces it uses:

  .oracle/bin/python tests/golden/make_mmseg_attention.py

Writes `mmseg_attention.npz` beside itself: what NLHead, DAHead and EMAHead of
mmsegmentation give for weights, bases and features made from names. Unlike at
initialisation, no block is the identity.
"""

import json

from make_mmseg import Archive
from make_mmseg import decode_heads
from make_mmseg import HEAD
from make_mmseg import make_labels
from make_mmseg import mmseg_names
from make_mmseg import samples
import numpy as np
import torch

FEATURES = (2, 12, 7, 9)
LABELS = (13, 17)
COMMON = dict(in_channels=12, in_index=0, **HEAD)
HEADS = {
    "nonlocal": (decode_heads.NLHead, COMMON),
    "danet": (decode_heads.DAHead, dict(pam_channels=4, **COMMON)),
    "emanet": (
        decode_heads.EMAHead,
        dict(ema_channels=16, num_bases=6, num_stages=3, **COMMON),
    ),
}
NAMES = ("logits", "position_logits", "channel_logits")


def state(module):
  """Returns everything but the counters of batch norms."""
  return {
      name: x.detach().clone()
      for name, x in module.state_dict().items()
      if not name.endswith("num_batches_tracked")
  }


def make(name, shape):
  return torch.from_numpy(np.asarray(mmseg_names.make_tensor(name, shape)))


def outputs(out):
  out = out if isinstance(out, tuple) else (out,)
  return dict(zip(NAMES, out, strict=False))


def main():
  archive = Archive()
  labels = make_labels(LABELS)
  archive.add("inputs", labels=labels, shape=FEATURES)
  for case, (cls, kwargs) in HEADS.items():
    head = cls(**kwargs)
    before = {name: make(name, x.shape) for name, x in state(head).items()}
    head.load_state_dict(mmseg_names.sharpen(before), strict=False)
    features = make("stage4.features", FEATURES).requires_grad_()
    shapes = {name: tuple(x.shape) for name, x in before.items()}
    archive.add(case, tensors=np.array(json.dumps(shapes)))
    with torch.no_grad():
      archive.add(case, **outputs(head.eval().forward([features])))

    head.train(True)
    out = head.forward([features])
    losses = head.loss_by_feat(out, samples(labels))
    loss = sum(x for name, x in losses.items() if "loss" in name)
    loss.backward()
    archive.add(case, **{"train/loss": loss})
    archive.add(case, **{f"train/{k}": x for k, x in outputs(out).items()})
    trained = dict(head.named_parameters())
    archive.add(
        case,
        **{
            f"train/{name}": x
            for name, x in state(head).items()
            if name not in trained
        },
    )
    archive.add(
        case,
        **{
            f"grad/{name}": x.grad
            for name, x in trained.items()
            if x.grad is not None
        },
    )
    archive.add(case, **{"grad/stage4.features": features.grad})
  archive.save("mmseg_attention.npz")


if __name__ == "__main__":
  torch.manual_seed(0)
  main()
