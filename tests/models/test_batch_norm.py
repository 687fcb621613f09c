"""The written-out derivative of batch norm is Flax's, from fewer bytes."""

import functools
import math

from absl.testing import absltest
from absl.testing import parameterized
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import networks
import numpy as np

from ctxseg_jax.models import batch_norm

FIELDS = dict(use_running_average=False, momentum=0.9, epsilon=1e-3)


def clip(y, bound):
  return jax.lax.clamp(0.0, y, bound)


def step(module, variables, x, weights, act=lambda y: y):
  """Returns loss, gradients and statistics of a weighted sum of the output."""

  def loss(params, x):
    y, updated = module.apply(
        {**variables, "params": params}, x, mutable=["batch_stats"]
    )
    total = jnp.sum(weights * jnp.tanh(act(y).astype(jnp.float32)))
    if module.axis_name is not None:
      total = jax.lax.psum(total, module.axis_name)
    return total, updated

  gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  return gradient(variables["params"], x)


class BatchNormTest(parameterized.TestCase):

  @parameterized.product(axis=(-1, 1), dtype=("float32", "bfloat16"))
  def test_values_and_gradients_are_those_of_flax(self, axis, dtype):
    x = 2 * networks.normal(0, 4, 6, 5, 3).astype(dtype) + 1
    weights = networks.normal(1, *x.shape)
    kw = dict(FIELDS, axis=axis, dtype=jnp.dtype(dtype))
    variables = networks.uniform(nn.BatchNorm(**kw), x)
    ours, flax = (
        jax.jit(functools.partial(step, cls(**kw)))(variables, x, weights)
        for cls in (batch_norm.BatchNorm, nn.BatchNorm)
    )
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    chex.assert_trees_all_close(ours, flax, rtol=tolerance, atol=tolerance)

  @parameterized.parameters((math.inf, nn.relu), (0.7, lambda y: clip(y, 0.7)))
  def test_an_activation_is_that_of_its_output(self, bound, act):
    x = networks.normal(0, 4, 6, 5, 3)
    weights = networks.normal(1, *x.shape)
    plain = batch_norm.BatchNorm(**FIELDS)
    variables = networks.uniform(plain, x)
    joined = batch_norm.BatchNorm(**FIELDS, clip=bound)
    chex.assert_trees_all_close(
        step(joined, variables, x, weights),
        step(plain, variables, x, weights, act),
        rtol=1e-5,
        atol=1e-5,
    )

  @parameterized.parameters(False, True)
  def test_devices_have_one_mean(self, varying):
    # `varying`: parameters that differ in type, as in accumulated gradients.
    x = networks.normal(0, 4, 6, 5, 3)
    weights = networks.normal(1, *x.shape)
    variables = networks.uniform(batch_norm.BatchNorm(**FIELDS), x)
    one = step(batch_norm.BatchNorm(**FIELDS), variables, x, weights)

    def run(variables, x, weights):
      module = batch_norm.BatchNorm(**FIELDS, axis_name="data")
      if varying:
        params = jax.tree.map(
            lambda p: jax.lax.pcast(p, "data", to="varying"),
            variables["params"],
        )
        variables = {**variables, "params": params}
      value, (params, dx) = step(module, variables, x, weights)
      return value, (jax.lax.psum(params, "data") if varying else params, dx)

    two = jax.jit(
        jax.shard_map(
            run,
            mesh=jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",)),
            in_specs=(P(), P("data"), P("data")),
            out_specs=(P(), (P(), P("data"))),
        )
    )(variables, x, weights)
    chex.assert_trees_all_close(two, one, rtol=1e-4, atol=1e-5)

  def test_frozen_in_training_is_the_running_average(self):
    x = networks.normal(0, 4, 6, 5, 3)
    variables = networks.uniform(batch_norm.BatchNorm(**FIELDS), x)
    kw = FIELDS | dict(use_running_average=True)
    ours, flax = (
        cls(**kw).apply(variables, x)
        for cls in (batch_norm.BatchNorm, nn.BatchNorm)
    )
    np.testing.assert_allclose(ours, flax, rtol=1e-6)

  def test_only_the_input_is_kept_and_in_its_dtype(self):
    x = jnp.zeros((4, 6, 5, 3), jnp.bfloat16)
    module = batch_norm.BatchNorm(**FIELDS, dtype=jnp.bfloat16)
    variables = networks.uniform(module, x)

    def residuals(x):
      apply = functools.partial(module.apply, mutable=["batch_stats"])
      return jax.vjp(lambda x: apply(variables, x)[0], x)[1]

    kept = jax.tree.leaves(jax.eval_shape(residuals, x))
    maps = [leaf.dtype for leaf in kept if leaf.shape == x.shape]
    self.assertEqual(maps, [jnp.bfloat16])


if __name__ == "__main__":
  absltest.main()
