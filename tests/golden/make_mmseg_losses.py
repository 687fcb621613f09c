"""Makes the golden file of the comparison of losses.

Environment as for `make_mmseg.py`; from the root of the repository:

  .oracle/bin/python tests/golden/make_mmseg_losses.py

Writes `mmseg_losses.npz` beside itself: values and gradients of PyTorch's and
mmsegmentation's losses for logits made from a name and labels in blocks.
"""

import types

import archive
from mmseg.models import losses
from mmseg.models.losses import dice_loss
from mmseg.models.losses import focal_loss
from mmseg.structures import OHEMPixelSampler
import numpy as np
import torch
import torch.nn.functional as F

SIZE = (17, 25)
CLASS_WEIGHTS = (0.5, 2.0, 1.5, 0.25, 3.0)


def weighted_cross_entropy(logits, labels):
  weights = torch.tensor(CLASS_WEIGHTS)
  return F.cross_entropy(logits, labels, weight=weights, ignore_index=255)


def sampled(threshold, min_kept):
  """OHEM as a decode head does it, of one image."""

  def loss(logits, labels):
    context = types.SimpleNamespace(ignore_index=255)
    sampler = OHEMPixelSampler(context, thresh=threshold, min_kept=min_kept)
    weight = sampler.sample(logits[:1], labels[:1, None])
    criterion = losses.CrossEntropyLoss()
    return criterion(logits[:1], labels[:1], weight=weight, ignore_index=255)

  return loss


def mined(threshold, min_kept):
  """The mean over the pixels that are kept, of one image."""
  criterion = losses.OhemCrossEntropy(thres=threshold, min_kept=min_kept)
  return lambda logits, labels: criterion(logits[:1], labels[:1])


def dice(logits, labels):
  """A row for each class present, without what is under ignored pixels."""
  images = []
  for scores, label in zip(logits, labels, strict=True):
    valid = label != 255
    rows = scores.softmax(0)[:, valid][..., None]
    target = F.one_hot(label[valid], archive.NUM_CLASSES).T[..., None]
    present = target.sum((1, 2)) > 0
    images.append(
        dice_loss.dice_loss(
            rows[present][:, None],
            target[present][:, None],
            weight=None,
            ignore_index=None,
        )
    )
  return torch.stack(images).mean()


def focal(logits, labels):
  """As on a GPU: on a CPU FocalLoss takes the wrong column for the targets."""
  scores = logits.permute(0, 2, 3, 1).reshape(-1, archive.NUM_CLASSES)
  labels = labels.flatten()
  valid = (labels != 255)[:, None]
  target = F.one_hot(torch.where(labels == 255, 0, labels), archive.NUM_CLASSES)
  return focal_loss.py_sigmoid_focal_loss(scores, target, valid_mask=valid)


CASES = {
    "weighted_cross_entropy": weighted_cross_entropy,
    # The threshold decides; then the number of pixels.
    "ohem_sampled_threshold": sampled(0.3, 20),
    "ohem_sampled_min_kept": sampled(0.02, 200),
    # More pixels than there are: all but the easiest.
    "ohem_sampled_all": sampled(0.02, 10_000),
    "ohem_mined_threshold": mined(0.3, 20),
    "ohem_mined_min_kept": mined(0.02, 200),
    "lovasz_softmax": losses.LovaszLoss(per_image=True),
    "dice": dice,
    "focal": focal,
}


def main():
  golden = archive.Archive()
  labels = np.ascontiguousarray(archive.make_labels(SIZE))
  golden.add("inputs", labels=labels)
  for case, loss in CASES.items():
    logits = 3.0 * archive.make(
        "stage4.features", (2, archive.NUM_CLASSES, *SIZE)
    )
    logits.requires_grad_()
    value = loss(logits, torch.from_numpy(labels).long())
    value.backward()
    golden.add(case, value=value, gradient=logits.grad)
  golden.save("mmseg_losses.npz")


if __name__ == "__main__":
  main()
