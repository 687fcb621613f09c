"""Losses that context heads bring along, of whole images or features.

The counts are sums of ones, not constants: inside `shard_map` they must vary
over the devices as the sums do.
"""

import jax
import jax.numpy as jnp
import optax


def class_presence(
    labels: jax.Array, num_classes: int, *, ignore_label: int = 255
) -> jax.Array:
  """Returns whether each class occurs in labels [B, ...]: 1 or 0, float32.

  The shape is [B, num_classes]; of labels [B], one per image, it is one-hot.
  """
  classes = jnp.arange(num_classes)
  labels = labels.astype(jnp.int32)[..., None]
  present = (labels == classes) & (labels != ignore_label)
  axes = tuple(range(1, labels.ndim - 1))
  return jnp.any(present, axis=axes).astype(jnp.float32)


def presence_bce(
    logits: jax.Array, labels: jax.Array, *, ignore_label: int = 255
) -> tuple[jax.Array, jax.Array]:
  """Computes the semantic encoding loss (EncNet's SE-loss).

  Binary cross-entropy of "class c occurs in this label map", after
  augmentation, so small and large objects weigh the same. Paper: section 3.1
  of Zhang et al., CVPR 2018; averaged over images and classes, as in the
  authors' code. The logits are [B, num_classes], the count is their number.
  """
  targets = class_presence(labels, logits.shape[-1], ignore_label=ignore_label)
  loss = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets)
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
