"""EncNet's encoding layer: residuals to codewords under soft assignment.

Paper: section 3; see `heads.encnet`.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models import layers
from ctxseg_jax.models import products

# How a vector is made of the codewords' residuals.
Pooling = Literal["mean", "sum"]


def encode(
    x: jax.Array, codewords: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sums the residuals to each codeword, weighted by soft assignment.

  Paper: Eq. (1). The distances are expanded, |x|^2 - 2 x.d + |d|^2, and the
  residuals summed as A^T x - (sum A) d, so that nothing of size [B, N, K, C]
  exists.

  Args:
    x: Pixel features, [B, N, C].
    codewords: [K, C], float32.
    scale: Smoothing factors with their sign, the paper's -s_k, [K], float32.

  Returns:
    The encoding [B, K, C], a sum over the N pixels, and the assignments
    [B, N, K] (rows sum to 1). Both are float32, computed in float32 from
    features of any dtype: the expanded distance cancels where x is near d.
  """
  x = x.astype(jnp.float32)
  x_sq = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  d_sq = jnp.sum(jnp.square(codewords), axis=-1)
  xd = products.einsum("bnc,kc->bnk", x, codewords)
  logits = scale * (x_sq - 2.0 * xd + d_sq)
  assignments = jax.nn.softmax(logits, axis=-1)
  weighted = products.einsum("bnk,bnc->bkc", assignments, x)
  mass = jnp.sum(assignments, axis=1)
  return weighted - mass[..., None] * codewords, assignments


def effective_codewords(assignments: jax.Array) -> jax.Array:
  """Returns exp(entropy) of the mean assignment: how many codewords serve.

  At the paper's C = 512 it starts near 1: the codeword whose scale is nearest
  to 0 takes almost every pixel. Assignments are [B, N, K].
  """
  share = jnp.mean(assignments, axis=(0, 1))
  return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))


def uniform(low: float, high: float) -> Callable[..., jax.Array]:
  """Returns an initialiser that draws from U(low, high)."""

  def init(key, shape):
    return jax.random.uniform(key, shape, jnp.float32, low, high)

  return init


class ContextEncoding(nn.Module):
  """Encodes a feature map into one vector of global statistics.

  The fields are `EncNetHead`'s. The code's first release did not project.
  """

  num_codewords: int = 32
  project: bool = True
  pooling: Pooling = "mean"
  scale_features: bool = False
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to the encoded semantics e, float32 [B, C]."""
    b, h, w, c = x.shape
    if self.project:
      x = layers.convolve(self, x, c, 1, name="project", train=train)
    if self.scale_features:
      x = x / jnp.asarray((c / 2) ** 0.5, x.dtype)
    if not self.num_codewords:
      return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    bound = (self.num_codewords * c) ** -0.5
    shape = (self.num_codewords, c)
    codewords = self.param("codewords", uniform(-bound, bound), shape)
    scale = self.param("scale", uniform(-1.0, 0.0), (self.num_codewords,))
    encoding, assignments = encode(x.reshape(b, h * w, c), codewords, scale)
    effective = effective_codewords(assignments)
    self.sow("diagnostics", "effective_codewords", effective)
    layers.expose(self, assignments=assignments.reshape(b, h, w, -1))
    # Batch norm with the codewords as channels: statistics over B and C.
    kw = dict(norm=self.norm, dtype=jnp.float32, name="bn", axis=1)
    encoding = nn.relu(layers.batch_norm(train=train, **kw)(encoding))
    pool = jnp.mean if self.pooling == "mean" else jnp.sum
    return pool(encoding, axis=1)
