"""Max pooling: padding, and gradients against XLA's."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import max_pooling


class MaxPoolingTest(parameterized.TestCase):

  def test_pads_with_minus_infinity(self):
    x = -jnp.ones((1, 4, 4, 1))
    np.testing.assert_array_equal(
        max_pooling.max_pool(x), -jnp.ones((1, 2, 2, 1))
    )

  @parameterized.parameters(
      (3, 2, 1, False, ((1, 1), (1, 1))),
      (3, 2, 1, True, ((1, 2), (1, 1))),
      (2, 2, 0, True, ((0, 0), (0, 1))),
      (3, 1, 1, False, ((1, 1), (1, 1))),
      (2, 3, 0, False, ((0, 0), (0, 0))),
  )
  def test_gradients_are_those_of_xla(self, window, stride, pad, ceil, pads):
    rng = np.random.default_rng(0)
    # Few values: most windows have their maximum more than once.
    x = jnp.asarray(rng.integers(-3, 3, (2, 8, 11, 3)), jnp.float32)
    ours = functools.partial(
        max_pooling.max_pool,
        window=window,
        stride=stride,
        padding=pad,
        ceil_mode=ceil,
    )

    def of_xla(x):
      return nn.max_pool(x, (window,) * 2, (stride,) * 2, pads)

    found, expected = (jax.vjp(f, x) for f in (ours, of_xla))
    np.testing.assert_array_equal(found[0], expected[0])
    cotangents = rng.integers(-9, 9, expected[0].shape).astype(np.float32)
    np.testing.assert_array_equal(
        found[1](cotangents)[0], expected[1](cotangents)[0]
    )

  @parameterized.parameters(("cpu", 0), ("tpu", 1), ("cuda", 1))
  def test_accelerators_have_the_gradient_of_xla(self, platform, count):
    def gradient(x):
      return jax.grad(lambda x: jnp.sum(max_pooling.max_pool(x)))(x)

    exported = jax.export.export(jax.jit(gradient), platforms=[platform])
    text = exported(jnp.ones((1, 8, 8, 1))).mlir_module()
    self.assertEqual(text.count('"stablehlo.select_and_scatter"'), count)


if __name__ == "__main__":
  absltest.main()
