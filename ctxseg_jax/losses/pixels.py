"""Losses that are a sum over pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import bounds

ClassWeights = tuple[bounds.NonNegativeFloat, ...]


def softmax_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    ignore_label: int = 255,
    class_weights: ClassWeights | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes cross-entropy over the pixels that carry a label.

  Args:
    class_weights: Weight of each class's pixels, in the count as well, so that
      the mean is the weighted mean of PyTorch; None is 1 for all.

  Raises:
    ValueError: Not one weight per class.
  """
  loss, valid, safe_labels = _cross_entropy(logits, labels, ignore_label)
  if class_weights is None:
    return jnp.sum(loss, where=valid), jnp.sum(valid)
  num_classes = logits.shape[-1]
  bounds.check_value(class_weights, ClassWeights, "class_weights")
  if len(class_weights) != num_classes:
    raise ValueError(
        f"class_weights: expected {num_classes}, one per class, got"
        f" {len(class_weights)}: {class_weights!r}"
    )
  weights = jnp.asarray(class_weights, jnp.float32)[safe_labels]
  return jnp.sum(weights * loss, where=valid), jnp.sum(weights, where=valid)


def _cross_entropy(logits, labels, ignore_label):
  """Returns the pixels' losses, which pixels are valid, and safe labels."""
  labels = labels.astype(jnp.int32)
  valid = labels != ignore_label
  safe_labels = jnp.where(valid, labels, 0)
  logits = logits.astype(jnp.float32)
  # Not by an index: the gradient of that is a scatter, and its indices take
  # more memory than the logits.
  is_label = jnp.arange(logits.shape[-1]) == safe_labels[..., None]
  of_label = jnp.sum(logits, axis=-1, where=is_label)
  loss = jax.nn.logsumexp(logits, axis=-1) - of_label
  return loss, valid, safe_labels


def ohem_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    ignore_label: int = 255,
    threshold: bounds.Fraction = 0.7,
    min_kept: bounds.NonNegativeInt = 100_000,
) -> tuple[jax.Array, jax.Array]:
  """Computes cross-entropy over the hard pixels of each image (OHEM).

  A pixel is hard if the probability of its true class is below `threshold`; of
  an image with fewer than `min_kept` such pixels, the `min_kept` hardest count.
  Rule and defaults are mmsegmentation's, which applies it to all images of a
  device together: here it applies to each image, so that the loss does not
  depend on the number of devices. OHEM takes the mean over the hard pixels,
  mmsegmentation's sampler over all (denominator "pixels").

  Args:
    threshold: Probability from which a pixel is easy.
    min_kept: Least number of pixels that count in an image that has as many.
  """
  loss, valid, _ = _cross_entropy(logits, labels, ignore_label)
  num_images = labels.shape[0]
  loss, valid = (x.reshape(num_images, -1) for x in (loss, valid))
  probability = jnp.exp(-jax.lax.stop_gradient(loss))
  # Ignored pixels last, behind every probability.
  ordered = jnp.sort(jnp.where(valid, probability, 2.0), axis=1)
  last = jnp.sum(valid, axis=1, keepdims=True) - 1
  index = jnp.maximum(jnp.minimum(min_kept, last), 0)
  limit = jnp.take_along_axis(ordered, index, axis=1)
  hard = valid & (probability < jnp.maximum(limit, threshold))
  return jnp.sum(loss, where=hard), jnp.sum(hard)


def focal(
    logits: jax.Array,
    labels: jax.Array,
    *,
    ignore_label: int = 255,
    alpha: bounds.Fraction = 0.5,
    gamma: bounds.NonNegativeFloat = 2.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the sigmoid focal loss, each class against the rest.

  Paper: Eq. (5) of Lin et al., "Focal Loss for Dense Object Detection", ICCV
  2017, https://arxiv.org/abs/1708.02002; alpha as in mmsegmentation (paper:
  0.25), and as there a pixel has the mean over its classes.

  Args:
    alpha: Weight of a pixel's own class; the others have 1 - alpha.
    gamma: Exponent of 1 - p_t, by which easy decisions count less.
  """
  labels = labels.astype(jnp.int32)
  valid = labels != ignore_label
  own = labels[..., None] == jnp.arange(logits.shape[-1])
  logits = logits.astype(jnp.float32)
  # p_t = sigmoid(signed), and 1 - p_t = sigmoid(-signed) without cancelling.
  signed = jnp.where(own, logits, -logits)
  easiness = jnp.exp(gamma * jax.nn.log_sigmoid(-signed))
  balance = jnp.where(own, alpha, 1.0 - alpha)
  loss = -balance * easiness * jax.nn.log_sigmoid(signed)
  return jnp.sum(jnp.mean(loss, axis=-1), where=valid), jnp.sum(valid)


def error_rate(
    logits: jax.Array, labels: jax.Array, *, ignore_label: int = 255
) -> tuple[jax.Array, jax.Array]:
  """Counts labels, of pixels or images, that have not the highest score.

  It has no gradient: a term of weight 0 logs the error of training.
  """
  labels = labels.astype(jnp.int32)
  valid = labels != ignore_label
  wrong = (jnp.argmax(logits, axis=-1) != labels).astype(jnp.float32)
  return jnp.sum(wrong, where=valid), jnp.sum(valid)


def resize_labels(labels: jax.Array, size: Sequence[int]) -> jax.Array:
  """Maps [B, H, W] to (h, w) = `size`: the labels nearest to its centres."""
  for axis, (target, source) in enumerate(
      zip(size, labels.shape[1:], strict=True), start=1
  ):
    index = ((np.arange(target) + 0.5) * source / target).astype(np.int32)
    labels = jnp.take(labels, index, axis=axis)
  return labels
