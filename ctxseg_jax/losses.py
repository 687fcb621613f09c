"""Losses as (sum, count), so that a mean can be taken over all devices.

With ignored pixels every device sees another number of labelled ones: a mean
of the devices' means is a noisier loss than the papers'. The caller sums both
parts over the devices and divides once.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax


def softmax_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, ignore_label: int = 255
) -> tuple[jax.Array, jax.Array]:
  """Computes per-pixel cross-entropy over the pixels that carry a label.

  Args:
    logits: Unnormalised class scores, [B, H, W, num_classes] or, for images of
      one class, [B, num_classes].
    labels: Integer classes, [B, H, W] or [B]; `ignore_label` marks unlabelled
      pixels.
    ignore_label: The label to leave out of both the sum and the count.

  Returns:
    The summed loss and the number of pixels that contributed, both scalars.
  """
  labels = labels.astype(jnp.int32)
  valid = labels != ignore_label
  safe_labels = jnp.where(valid, labels, 0)
  loss = optax.softmax_cross_entropy_with_integer_labels(
      logits.astype(jnp.float32), safe_labels
  )
  return jnp.sum(loss, where=valid), jnp.sum(valid)


def class_presence(
    labels: jax.Array, num_classes: int, *, ignore_label: int = 255
) -> jax.Array:
  """Tells which classes occur in each label map.

  Args:
    labels: Integer classes, [B, H, W] or [B].
    num_classes: Number of classes.
    ignore_label: A label that is not a class.

  Returns:
    float32 [B, num_classes], 1 where at least one pixel has the class.
  """
  classes = jnp.arange(num_classes)
  labels = labels.astype(jnp.int32)[..., None]
  present = (labels == classes) & (labels != ignore_label)
  # Over no axis where a label is one class: then it is one-hot.
  axes = tuple(range(1, labels.ndim - 1))
  return jnp.any(present, axis=axes).astype(jnp.float32)


def presence_bce(
    logits: jax.Array, labels: jax.Array, *, ignore_label: int = 255
) -> tuple[jax.Array, jax.Array]:
  """Computes the semantic encoding loss (EncNet's SE-loss).

  Binary cross-entropy of "class c occurs in this label map", after
  augmentation, so small and large objects weigh the same. Paper: section 3.1
  of Zhang et al., CVPR 2018; averaged over images and classes as the authors'
  code does.

  Args:
    logits: One score per image and class, [B, num_classes].
    labels: Integer classes, [B, H, W].
    ignore_label: A label that is not a class.

  Returns:
    The summed loss and B * num_classes, both scalars.
  """
  targets = class_presence(labels, logits.shape[-1], ignore_label=ignore_label)
  loss = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets)
  # An array that varies over devices like the sum does, not a constant.
  count = jnp.sum(jnp.ones_like(loss))
  return jnp.sum(loss), count


def resize_labels(labels: jax.Array, size: Sequence[int]) -> jax.Array:
  """Picks the label nearest to the middle of each cell of a coarser map.

  Args:
    labels: Integer classes, [B, H, W].
    size: (h, w), the size of the logits to be supervised (DeepLabV2).

  Returns:
    [B, h, w].
  """
  for axis, (target, source) in enumerate(
      zip(size, labels.shape[1:], strict=True), start=1
  ):
    index = ((np.arange(target) + 0.5) * source / target).astype(np.int32)
    labels = jnp.take(labels, index, axis=axis)
  return labels


LOSSES = {
    "presence_bce": presence_bce,
    "softmax_cross_entropy": softmax_cross_entropy,
}

# Losses that are a sum over pixels: what the papers divide it by differs.
PIXEL_LOSSES = frozenset({"softmax_cross_entropy"})

# By what a sum over pixels is divided, of the labelled pixels `count`, the
# images and all pixels of the global batch. At equal learning rates these are
# different recipes.
DENOMINATORS: dict[str, Callable[[jax.Array, int, int], jax.Array]] = {
    # torch, PyTorch-Encoding, semseg.
    "labelled": lambda count, images, pixels: count,
    # mmsegmentation's default, EMANet: ignored pixels count too.
    "pixels": lambda count, images, pixels: jnp.full_like(count, pixels),
    # pytorch-deeplab-xception, MFNet: divided by the batch size once more.
    "labelled_times_images": lambda count, images, pixels: count * images,
    # The first FCN: the sum itself.
    "one": lambda count, images, pixels: jnp.ones_like(count),
}
