"""Makes the golden files of resizing, pooling and padding as PyTorch has them.

Any CPU build of PyTorch will do; from the root of the repository:

  .oracle/bin/python tests/golden/make_torch_ops.py

Writes `torch_ops.npz` and `torch_adaptive_pool.npz` beside itself.
"""

import archive
import torch.nn.functional as F

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
# Bins and maps: bins that overlap, bins of one pixel, more bins than pixels,
# a map in use.
ADAPTIVE_POOLS = (
    ((1, 1), (9, 13)),
    ((2, 2), (9, 13)),
    ((3, 3), (8, 7)),
    ((6, 6), (9, 13)),
    ((6, 6), (5, 3)),
    ((5, 7), (5, 7)),
    ((6, 1), (60, 3)),
)


def make_ops():
  golden = archive.Archive()
  for source, target in RESIZES:
    case = "resize/{}x{}_{}x{}".format(*source, *target)
    x = archive.make(f"{case}.features", (1, 1, *source))
    for name, align_corners in (("half_pixel", False), ("aligned", True)):
      kw = dict(mode="bilinear", align_corners=align_corners)
      golden.add(case, {name: F.interpolate(x, target, **kw)[0, 0]})
  for size in POOLS:
    case = "pool/{}x{}".format(*size)
    # All values below -1: padding of zeros would win at the edges.
    x = archive.make(f"{case}.features", (1, 2, *size)) - 3.0
    golden.add(case, out=F.max_pool2d(x, 3, 2, 1))
  for kernel, stride, dilation, size in CONVS:
    case = "conv/k{}_s{}_d{}_{}x{}".format(kernel, stride, dilation, *size)
    x = archive.make(f"{case}.features", (1, 3, *size))
    weight = archive.make(f"{case}.weight", (4, 3, kernel, kernel))
    kw = dict(padding=dilation * (kernel - 1) // 2, dilation=dilation)
    golden.add(case, out=F.conv2d(x, weight, stride=stride, **kw))
  golden.save("torch_ops.npz")


def make_adaptive_pools():
  golden = archive.Archive()
  for target, source in ADAPTIVE_POOLS:
    case = "{}x{}_{}x{}".format(*target, *source)
    x = archive.make(f"{case}.features", (2, 3, *source))
    golden.add(case, out=F.adaptive_avg_pool2d(x, target))
  golden.save("torch_adaptive_pool.npz")


if __name__ == "__main__":
  make_ops()
  make_adaptive_pools()
