"""Attention of many queries to many keys, in bounded memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models import layers
from ctxseg_jax.models import products


def attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    scale: float = 1.0,
    chunk_size: int = 512,
) -> jax.Array:
  """Averages values by softmax(scale * queries keys^T), softmax over the keys.

  Queries are taken in chunks of equal size, each recomputed in the backward
  pass, so that of the [B, N, M] attention one chunk exists at a time: at N = M
  = 4096 the gradients need a fifth of the memory.

  Args:
    queries: [B, N, D].
    keys: [B, M, D].
    values: [B, M, C].
    scale: Factor of the inner products.
    chunk_size: Largest number of queries at a time.

  Returns:
    [B, N, C] in the dtype of the values; inner products, softmax and sums are
    float32.
  """

  def attend(queries):
    logits = products.einsum("bnd,bmd->bnm", queries, keys)
    weights = jax.nn.softmax(scale * logits, axis=-1).astype(values.dtype)
    out = products.einsum("bnm,bmc->bnc", weights, values)
    return out.astype(values.dtype)

  b, n, d = queries.shape
  is_symbolic = jax.export.is_symbolic_dim(n)  # Of any size, to be exported.
  if not is_symbolic and n <= chunk_size:
    return attend(queries)
  num_chunks = -(-n // chunk_size)
  size = chunk_size if is_symbolic else -(-n // num_chunks)
  padding = num_chunks * size - n
  queries = jnp.pad(queries, ((0, 0), (0, padding), (0, 0)))
  chunks = queries.reshape(b, num_chunks, size, d).swapaxes(0, 1)
  # A loop needs no protection from common subexpression elimination.
  out = jax.lax.map(jax.checkpoint(attend, prevent_cse=False), chunks)
  return out.swapaxes(0, 1).reshape(b, num_chunks * size, -1)[:, :n]


def expose(
    module: nn.Module,
    queries: jax.Array,
    keys: jax.Array,
    size: tuple[int, int],
    *,
    scale: float = 1.0,
) -> None:
  """Exposes what the attention of a position is made of, see `layers.expose`.

  The attention of all positions is never there at once, but that of one is the
  softmax of its `"queries"`, [B, H, W, D] with the scale in them, times all
  `"keys"`, [B, H, W, D]. (H, W) = `size`, and H * W = N.
  """
  b, _, d = queries.shape
  layers.expose(
      module,
      queries=scale * queries.astype(jnp.float32).reshape(b, *size, d),
      keys=keys.reshape(b, *size, d),
  )
