"""Parameters that all devices of a mesh share, used where images differ."""

import jax


def vary_as(x: jax.Array, *params: jax.Array) -> list[jax.Array]:
  """Returns parameters as values of their own on each device, as x is.

  A custom gradient may not sum over devices itself; the gradient of this cast
  does. Outside of `shard_map`, and where they vary already, nothing changes.
  """
  axes = jax.typeof(x).manual_axis_type.varying

  def cast(param):
    missing = axes - jax.typeof(param).manual_axis_type.varying
    return jax.lax.pcast(param, tuple(missing), to="varying")

  return [cast(param) for param in params]
