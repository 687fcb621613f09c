"""How much of a label its most frequent class has."""

import numpy as np


def is_mixed(label: np.ndarray, most: float, ignore_label: int) -> bool:
  """Returns whether no class fills a label, by mmsegmentation's cat_max_ratio.

  That is, whether there are two classes or more, and the most frequent has
  less than a share `most` of the pixels that are not ignored.

  Args:
    label: Train ids, uint8 [H, W].
    most: A share, up to 1.
    ignore_label: What is not counted.
  """
  counts = np.bincount(label.ravel(), minlength=256)
  counts[ignore_label] = 0
  return np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum()
