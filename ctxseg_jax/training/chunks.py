"""Upsampling and loss together, a few rows of the image at a time."""

import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.losses.term import LossFn
from ctxseg_jax.models import resizing


def upsampled_loss(
    loss: LossFn,
    logits: jax.Array,
    labels: jax.Array,
    *,
    num_chunks: int,
    align_corners: bool,
    ignore_label: int,
) -> tuple[jax.Array, jax.Array]:
  """Sums a loss of upsampled logits without ever holding all of them.

  The backward pass upsamples each chunk again.

  Args:
    loss: A loss that is a sum over pixels.
    logits: Class scores as the head returns them, [B, h, w, num_classes].
    labels: [B, H, W].
    num_chunks: Parts, of whole rows, that are scored one after another.
    align_corners: As `resizing.resize_bilinear` has it.
    ignore_label: Label of pixels that do not count.

  Returns:
    The sum and the count of the loss.
  """
  batch, height, width = labels.shape
  size = -(-height // num_chunks)
  padding = ((0, size * num_chunks - height), (0, 0))
  convention = dict(align_corners=align_corners)
  rows = resizing.resize_matrix(height, logits.shape[1], **convention)
  cols = resizing.resize_matrix(width, logits.shape[2], **convention)
  rows = np.pad(rows, padding).reshape(num_chunks, size, -1)
  labels = jnp.pad(labels, ((0, 0), *padding), constant_values=ignore_label)
  labels = labels.reshape(batch, num_chunks, size, width).swapaxes(0, 1)

  def score(chunk):
    rows, labels = chunk
    scores = resizing.multiply(rows, cols, logits.astype(jnp.float32))
    return loss(scores, labels, ignore_label=ignore_label)

  # A loop needs no protection from common subexpression elimination.
  score = jax.checkpoint(score, prevent_cse=False)
  totals, counts = jax.lax.map(score, (rows, labels))
  return jnp.sum(totals), jnp.sum(counts)
