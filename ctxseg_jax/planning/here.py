"""The devices at hand: what they can do, and how long a step takes there."""

from collections.abc import Callable
import time
from typing import Any

import jax
import jax.numpy as jnp

from ctxseg_jax import memory
from ctxseg_jax.planning import chips

_SIDE = 2048  # Of the matrices whose product shows the peak.
_ELEMENTS = 1 << 25  # Of the arrays, larger than caches, that are added.
_REPEATS = 5


def describe_devices(dtype: jnp.dtype) -> chips.Slice:
  """Measures the devices of this process, and returns them as a slice.

  The peak is that of a product of square matrices of the compute `dtype`, the
  bandwidth that of a sum of two arrays; the best of some runs. Links between
  devices are not measured.
  """
  devices = jax.devices()
  with jax.default_device(devices[0]):
    square = jnp.full((_SIDE, _SIDE), 1 / _SIDE, dtype)
    flops = 2 * _SIDE**3 / _fastest(jnp.matmul, square, square)
    long = jnp.ones(_ELEMENTS, jnp.float32)
    bandwidth = 3 * long.nbytes / _fastest(jnp.add, long, long)
  own = memory.device_bytes(devices[0])
  if own is None:
    own = memory.free_host_bytes() / len(devices)
  chip = chips.Chip(flops, own, bandwidth)
  return chips.Slice(devices[0].device_kind, chip, (len(devices),))


def _fastest(function, x, y):
  # In the memory of its first argument: pages that are new take time.
  function = jax.jit(function, donate_argnums=0)
  x = function(jnp.copy(x), y).block_until_ready()
  times = []
  for _ in range(_REPEATS):
    start = time.perf_counter()
    x = function(x, y).block_until_ready()
    times.append(time.perf_counter() - start)
  return min(times)


def time_steps(
    compiled: Callable[..., Any], shapes: tuple[Any, ...], steps: int
) -> list[float]:
  """Runs a compiled step on drawn images, and returns seconds per step.

  Parameters are small and constant: the arithmetic is that of any others. One
  step before does not count.

  Args:
    compiled: The compiled step.
    shapes: The shapes of its arguments: state, batch and random key.
    steps: How often it runs.
  """
  state, batch, key = shapes

  @jax.jit
  def fill():
    draw = jax.random.key(0)
    filled = jax.tree.map(lambda x: jnp.full(x.shape, 0.01, x.dtype), state)
    images = jax.random.randint(draw, batch["image"].shape, 0, 256)
    labels = jax.random.randint(draw, batch["label"].shape, 0, 2)
    return (
        filled,
        {"image": images.astype("uint8"), "label": labels.astype("uint8")},
        jnp.asarray(draw),
    )

  state, batch, key = jax.tree.map(
      lambda x, shape: jax.device_put(x, shape.sharding), fill(), shapes
  )
  times = []
  for _ in range(steps + 1):
    start = time.perf_counter()
    state, scalars = compiled(state, batch, key)
    jax.block_until_ready((state, scalars))
    times.append(time.perf_counter() - start)
  return times[1:]
