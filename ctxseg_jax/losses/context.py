"""Losses that context heads bring along, of whole images or features.

The counts are sums of ones, not constants: inside `shard_map` they must vary
over the devices as the sums do.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax


def class_presence(
    labels: jax.Array, num_classes: int, *, ignore_label: int = 255
) -> jax.Array:
  """Returns whether each class occurs in labels [B, ...]: 1 or 0, float32.

  The shape is [B, num_classes]; of labels [B], one per image, it is one-hot.
  """
  num_pixels = _pixels_of_classes(labels, num_classes, ignore_label)
  return (num_pixels > 0).astype(jnp.float32)


def class_area(
    labels: jax.Array, num_classes: int, *, ignore_label: int = 255
) -> jax.Array:
  """Returns the share of each class in the labelled pixels, float32.

  The labels are [B, ...], the shares [B, num_classes]; of an image without
  labels they are 0.
  """
  num_pixels = _pixels_of_classes(labels, num_classes, ignore_label)
  total = jnp.sum(num_pixels, axis=-1, keepdims=True)
  return num_pixels / jnp.maximum(total, 1)


def _pixels_of_classes(labels, num_classes, ignore_label):
  """Returns the number of pixels [B, num_classes] of labels [B, ...]."""
  labels = labels.astype(jnp.int32)
  labels = jnp.where(labels == ignore_label, num_classes, labels)
  return jax.lax.platform_dependent(
      labels.reshape(len(labels), -1),
      cpu=functools.partial(count_by_index, num_classes),
      default=functools.partial(count_by_comparison, num_classes),
  )


def count_by_comparison(num_classes: int, labels: jax.Array) -> jax.Array:
  """Counts labels [B, N] below `num_classes` where that fuses with its sum."""
  own = labels[..., None] == jnp.arange(num_classes)
  return jnp.sum(own, axis=1)


def count_by_index(num_classes: int, labels: jax.Array) -> jax.Array:
  """Counts the same without an array [B, N, num_classes].

  Compilers for CPUs make it, of 1 GB for eight images of ADE20K.
  """
  count = functools.partial(jnp.bincount, length=num_classes + 1)
  return jax.vmap(count)(labels)[:, :num_classes]


def presence_bce(
    logits: jax.Array,
    labels: jax.Array,
    *,
    ignore_label: int = 255,
    targets: Literal["presence", "area"] = "presence",
) -> tuple[jax.Array, jax.Array]:
  """Computes the semantic encoding loss (EncNet's SE-loss).

  Binary cross-entropy of "class c occurs in this label map", after
  augmentation, so small and large objects weigh the same. Paper: section 3
  of Zhang et al., CVPR 2018; averaged over images and classes, as in the
  authors' code. The logits are [B, num_classes], the count is their number.

  Args:
    targets: "presence", 1 or 0, or "area", the share of the labelled pixels
      (SANet's categorical loss, whose targets are "average pooled").
  """
  target_fn = {"presence": class_presence, "area": class_area}[targets]
  target = target_fn(labels, logits.shape[-1], ignore_label=ignore_label)
  loss = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target)
  return jnp.sum(loss), jnp.sum(jnp.ones_like(loss))


def mean_squared_residual(
    residual: jax.Array, labels: jax.Array, *, ignore_label: int = 255
) -> tuple[jax.Array, jax.Array]:
  """Computes the mean square of the residual of a reconstruction (MFNet).

  The residual, features less their reconstruction, has any shape, and every
  element counts: features of ignored pixels are reconstructed as well.
  """
  del labels, ignore_label
  squares = jnp.square(residual.astype(jnp.float32))
  return jnp.sum(squares), jnp.sum(jnp.ones_like(squares))
