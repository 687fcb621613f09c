"""The network over images or windows, on the devices."""

from collections.abc import Callable
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ctxseg_jax.models.layers import normalize_images


def make(
    model: nn.Module,
    mesh: jax.sharding.Mesh,
    mean: Sequence[float],
    std: Sequence[float],
    window: tuple[int, int] | None,
) -> Callable[..., jax.Array]:
  """Returns the network as a `jax.jit` function over a mesh.

  Args:
    model: The network.
    mesh: Mesh with one axis, over which batches are spread.
    mean: Mean of the images' channels, 0 to 255.
    std: Their standard deviation.
    window: (H, W) of the windows that the network sees; None is whole images.

  Returns:
    A function of variables, images, uint8 [B, h, w, 3], and optionally the
    matrices [B, H, h] and [B, W, w] that lead back to the image's own pixels
    and the starts [B, n, 2] and weights [B, n] of the windows. It returns
    logits or, with matrices, probabilities [B, H, W, C].
  """

  def network(variables, images):
    images = normalize_images(images, mean, std)
    return model.apply(variables, images, train=False)["logits"]

  def windows(variables, images, starts, weights):
    def cut(image, start):
      return jax.lax.dynamic_slice(image, (*start, 0), (*window, 3))

    def paste(total, count, values, start, weight):
      at = (*start, 0)
      old = jax.lax.dynamic_slice(total, at, values.shape)
      total = jax.lax.dynamic_update_slice(total, old + weight * values, at)
      at = tuple(start)
      old = jax.lax.dynamic_slice(count, at, window)
      count = jax.lax.dynamic_update_slice(count, old + weight, at)
      return total, count

    def visit(carry, step):
      start, weight = step
      values = network(variables, jax.vmap(cut)(images, start))
      return jax.vmap(paste)(*carry, values, start, weight), None

    # The zeros are made from the images so that they vary over devices too.
    zero = images[..., :1].astype(jnp.float32) * 0.0
    one = jnp.zeros((1, *window, 3), images.dtype)
    classes = jax.eval_shape(lambda: network(variables, one)).shape[-1]
    carry = (jnp.repeat(zero, classes, axis=-1), zero[..., 0])
    steps = (starts.swapaxes(0, 1), weights.swapaxes(0, 1))
    (total, count), _ = jax.lax.scan(visit, carry, steps)
    return total / jnp.maximum(count, 1.0)[..., None]

  def forward(variables, images, rows=None, cols=None, *where):
    x = (windows if where else network)(variables, images, *where)
    if rows is None:
      return x
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("bHh,bhwc->bHwc", rows, x, precision=exact)
    x = jnp.einsum("bWw,bHwc->bHWc", cols, x, precision=exact)
    return jax.nn.softmax(x, axis=-1)

  def call(variables, *inputs):
    axis = P(mesh.axis_names[0])
    specs = (P(), *[axis] * len(inputs))
    return jax.shard_map(forward, mesh=mesh, in_specs=specs, out_specs=axis)(
        variables, *inputs
    )

  return jax.jit(call)
