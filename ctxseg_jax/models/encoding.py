"""The encoding layer: residuals to codewords under soft assignment.

Reference: Zhang et al., "Context Encoding for Semantic Segmentation", CVPR
2018, https://arxiv.org/abs/1803.08904, section 3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def encode(
    x: jax.Array, codewords: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sums the residuals to each codeword, weighted by soft assignment.

  Paper: Eq. (1), with the sign inside `scale` (the paper's -s_k), as in the
  code. The distances are expanded, |x|^2 - 2 x.d + |d|^2, and the residuals
  summed as A^T x - (sum A) d, so that nothing of size [B, N, K, C] exists.

  Args:
    x: Pixel features, [B, N, C]; matrix products run in their dtype and
      accumulate in float32.
    codewords: [K, C], float32.
    scale: Smoothing factors, [K], float32.

  Returns:
    The encoding [B, K, C], a sum over the N pixels, and the assignments
    [B, N, K] (rows sum to 1), both float32.
  """
  f32 = jnp.float32
  # The expanded distance cancels where x is near d: float32 must be full
  # float32, which GPUs and TPUs only do when asked.
  kw = dict(preferred_element_type=f32, precision=jax.lax.Precision.HIGHEST)
  x_sq = jnp.sum(jnp.square(x.astype(f32)), axis=-1, keepdims=True)
  d_sq = jnp.sum(jnp.square(codewords), axis=-1)
  xd = jnp.einsum("bnc,kc->bnk", x, codewords.astype(x.dtype), **kw)
  logits = scale * (x_sq - 2.0 * xd + d_sq)
  assignments = jax.nn.softmax(logits, axis=-1)
  weights = assignments.astype(x.dtype)
  weighted = jnp.einsum("bnk,bnc->bkc", weights, x, **kw)
  mass = jnp.sum(weights.astype(f32), axis=1)
  return weighted - mass[..., None] * codewords, assignments


def effective_codewords(assignments: jax.Array) -> jax.Array:
  """Returns exp(entropy) of the mean assignment: how many codewords serve.

  At the paper's C = 512 it starts near 1 (the codeword whose scale is nearest
  to 0 takes almost every pixel); that is a property of the layer, not a bug.

  Args:
    assignments: [B, N, K].
  """
  share = jnp.mean(assignments, axis=(0, 1))
  return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))


def uniform(low: float, high: float) -> Callable[..., jax.Array]:
  """Returns an initialiser that draws from U(low, high)."""

  def init(key, shape):
    return jax.random.uniform(key, shape, jnp.float32, low, high)

  return init
