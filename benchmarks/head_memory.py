"""Compares what compiled heads hold in memory with their naive forms.

  python -m benchmarks.head_memory

Compiles the gradients of the memory-bound parts, in the form that the papers
write and in ours, and prints the temporary buffers of both. Nothing is run. The
figures are those of the compiler of the device at hand.
"""

from collections.abc import Callable

from absl import flags
import jax
import jax.numpy as jnp

from ctxseg_jax import commands
from ctxseg_jax.models import attention
from ctxseg_jax.models import encoding


def temporaries(function: Callable[..., jax.Array], *shapes) -> int:
  """Returns the bytes of temporary buffers of a function's gradient."""
  args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

  def loss(*args):
    return jnp.sum(jnp.square(function(*args)))

  grad = jax.jit(jax.grad(loss, argnums=tuple(range(len(args)))))
  compiled = grad.lower(*args).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def encode_residuals(x, codewords, smoothing):
  """The encoding with every residual x - d at once, [B, N, K, C]."""
  residuals = x[:, :, None] - codewords
  logits = smoothing * jnp.sum(jnp.square(residuals), axis=-1)
  assignments = jax.nn.softmax(logits, axis=-1)
  return jnp.einsum("bnk,bnkc->bkc", assignments, residuals)


def compare(batch: int, positions: int) -> list[tuple[str, int, int]]:
  """Returns (part, bytes of the naive form, bytes of ours) of each part."""
  wide, half, narrow = ((batch, positions, c) for c in (512, 256, 64))
  rows = [
      (
          "encoding, 32 codewords of 512 (EncNet)",
          temporaries(encode_residuals, wide, (32, 512), (32,)),
          temporaries(
              lambda *args: encoding.encode(*args)[0], wide, (32, 512), (32,)
          ),
      )
  ]
  for part, queries, values in (
      ("attention of 256 channels (non-local)", half, half),
      ("position attention of 64 and 512 channels (DANet)", narrow, wide),
  ):
    whole, chunked = (
        temporaries(
            lambda q, k, v, size=size: attention.attention(
                q, k, v, chunk_size=size
            ),
            queries,
            queries,
            values,
        )
        for size in (positions, 512)
    )
    rows.append((part, whole, chunked))
  return rows


def main(argv):
  del argv
  batch, side = flags.FLAGS.batch, flags.FLAGS.size
  print(
      f"Temporaries of the gradient, {batch} maps of {side}x{side}, float32,"
      f" {jax.devices()[0].platform}:"
  )
  for part, naive, ours in compare(batch, side * side):
    print(
        f"{part}: {naive / 2**20:.0f} MiB naive, {ours / 2**20:.0f} MiB here,"
        f" {naive / ours:.1f} times less"
    )


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_integer("batch", 4, "Images.", lower_bound=1)
  flags.DEFINE_integer(
      "size", 60, "Side of the feature map: 60 is 480 at output stride 8."
  )
  commands.run(main)
