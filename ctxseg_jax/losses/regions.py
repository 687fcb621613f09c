"""Losses of the overlap of regions: means over the images and their classes.

Each returns the sum over images of the mean over the classes in their labels,
and the number of images with a labelled pixel.
"""

import jax
import jax.numpy as jnp

from ctxseg_jax import bounds


def lovasz_softmax(
    logits: jax.Array, labels: jax.Array, *, ignore_label: int = 255
) -> tuple[jax.Array, jax.Array]:
  """Computes the Lovasz extension of one minus the IoU of each image.

  Reference: Berman et al., "The Lovasz-Softmax loss", CVPR 2018,
  https://arxiv.org/abs/1705.08790. Computed per image, so that it does not
  depend on the number of devices, over the classes in the image's labels.
  """
  probabilities, own, valid = _class_maps(logits, labels, ignore_label)
  # Ignored pixels have no error, and are sorted behind all others.
  error = jnp.where(valid, jnp.abs(own - probabilities), 0.0)
  keys = jax.lax.stop_gradient(jnp.where(valid, error, -1.0))
  # The extension is linear between orders of the errors: its gradient is the
  # step of the Jaccard loss at each one's place. One image at a time, for the
  # memory of the sort.
  steps = jax.lax.map(lambda image: _jaccard_steps(*image), (keys, own))
  loss = jnp.sum(error * jax.lax.stop_gradient(steps), axis=-1)
  return _mean_over_present(loss, own)


def _jaccard_steps(errors, own):
  """Returns by how much the Jaccard loss grows with each pixel's error.

  Paper: Algorithm 1. Errors [C, N] are negative for ignored pixels; `own`,
  whether a class is the pixel's, and the result have their shape.
  """
  order = jnp.argsort(-errors, axis=-1)
  own = jnp.take_along_axis(own, order, axis=-1)
  total = jnp.sum(own, axis=-1, keepdims=True)
  intersection = total - jnp.cumsum(own, axis=-1)
  union = total + jnp.cumsum(1.0 - own, axis=-1)
  # Differences of 1 - intersection / union, which in float32 would lose their
  # digits among many pixels. An absent class has no union to divide by.
  steps = jnp.where(
      own > 0,
      1.0 / jnp.maximum(union, 1.0),
      intersection / jnp.maximum(union * (union - 1.0), 1.0),
  )
  return jnp.take_along_axis(steps, jnp.argsort(order, axis=-1), axis=-1)


def dice(
    logits: jax.Array,
    labels: jax.Array,
    *,
    ignore_label: int = 255,
    epsilon: bounds.PositiveFloat = 1e-3,
) -> tuple[jax.Array, jax.Array]:
  """Computes one minus the Dice coefficients of each image.

  1 - 2 sum(p t) / (sum(p^2) + sum(t^2)) of the softmax p and the one-hot
  labels t of a class, with the squares of Milletari et al., "V-Net", 3DV
  2016, https://arxiv.org/abs/1606.04797; the mean over the classes in an
  image's labels. mmsegmentation computes one coefficient over all classes, in
  which large classes dominate, and counts predictions at ignored pixels as
  errors.

  Args:
    epsilon: Added to both sums of the denominator.
  """
  probabilities, own, valid = _class_maps(logits, labels, ignore_label)
  both = jnp.sum(probabilities * own, axis=-1)
  predicted = jnp.sum(jnp.square(probabilities), axis=-1, where=valid)
  labelled = jnp.sum(own, axis=-1)
  loss = 1.0 - 2.0 * both / (predicted + labelled + 2.0 * epsilon)
  return _mean_over_present(loss, own)


def _class_maps(logits, labels, ignore_label):
  """Returns softmax [B, C, N], one-hot labels alike, and valid [B, 1, N]."""
  num_images = labels.shape[0]
  labels = labels.astype(jnp.int32).reshape(num_images, 1, -1)
  logits = logits.astype(jnp.float32)
  probabilities = jax.nn.softmax(logits, axis=-1)
  num_classes = logits.shape[-1]
  probabilities = probabilities.reshape(num_images, -1, num_classes)
  valid = labels != ignore_label
  own = (labels == jnp.arange(num_classes)[:, None]) & valid
  return probabilities.swapaxes(1, 2), own.astype(jnp.float32), valid


def _mean_over_present(loss, own):
  present = jnp.any(own > 0, axis=-1)
  num_present = jnp.sum(present, axis=-1)
  mean = jnp.sum(loss, axis=-1, where=present) / jnp.maximum(num_present, 1)
  return jnp.sum(mean), jnp.sum(num_present > 0)
