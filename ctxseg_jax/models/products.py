"""Sums of products in float32."""

import jax
import jax.numpy as jnp

# What float32 operands need: without it GPUs multiply 10 bits of their
# mantissas, and TPUs 7.
FULL = jax.lax.Precision.HIGHEST


def einsum(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns `jnp.einsum` of two arrays as float32, on every device.

  Arrays of float32 are multiplied in full. Products of bfloat16 are exact in
  float32 anyway; their gradients multiply the float32 that comes from above at
  the precision of the device, and are rounded to bfloat16 in the end.
  """
  full = a.dtype == b.dtype == jnp.float32
  return jnp.einsum(
      subscripts,
      a,
      b,
      precision=FULL if full else None,
      preferred_element_type=jnp.float32,
  )
