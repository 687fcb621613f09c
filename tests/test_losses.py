"""Losses against hand-computed values; what must not count, does not."""

from absl.testing import absltest
import chex
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import losses


class CrossEntropyTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_matches_loops(self):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    labels = rng.integers(0, 5, size=(2, 3, 4))
    labels[0, 1] = 255
    expected = 0.0
    count = 0
    for b, y, x in np.ndindex(labels.shape):
      if labels[b, y, x] != 255:
        z = logits[b, y, x].astype(np.float64)
        expected += np.log(np.exp(z).sum()) - z[labels[b, y, x]]
        count += 1
    total, n = self.variant(losses.softmax_cross_entropy)(
        jnp.asarray(logits), jnp.asarray(labels, jnp.uint8)
    )
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    self.assertEqual(n, count)

  def test_ignored_pixels_have_no_gradient(self):
    labels = jnp.array([[[0, 255], [255, 1]]])
    logits = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
    grads = jax.grad(lambda x: losses.softmax_cross_entropy(x, labels)[0])(
        logits
    )
    np.testing.assert_array_equal(grads[0, 0, 1], np.zeros(3))
    np.testing.assert_array_equal(grads[0, 1, 0], np.zeros(3))
    self.assertGreater(jnp.abs(grads[0, 0, 0]).sum(), 0.1)

  def test_an_all_ignored_batch_has_zero_loss_and_finite_gradients(self):
    labels = jnp.full((1, 2, 2), 255)
    logits = jnp.full((1, 2, 2, 3), 1e4)

    def loss(x):
      total, count = losses.softmax_cross_entropy(x, labels)
      return total / jnp.maximum(count, 1)

    value, grads = jax.value_and_grad(loss)(logits)
    self.assertEqual(value, 0.0)
    np.testing.assert_array_equal(grads, np.zeros_like(grads))

  def test_another_ignore_label(self):
    labels = jnp.array([[[7, 1]]])
    logits = jnp.zeros((1, 1, 2, 3))
    total, count = losses.softmax_cross_entropy(logits, labels, ignore_label=7)
    self.assertEqual(count, 1)
    np.testing.assert_allclose(total, np.log(3), rtol=1e-6)


class PresenceTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_presence_is_per_image_and_leaves_ignored_out(self):
    labels = jnp.array([[[0, 2], [255, 2]], [[1, 1], [1, 255]]])
    present = self.variant(lambda x: losses.class_presence(x, 4))(labels)
    np.testing.assert_array_equal(present, [[1, 0, 1, 0], [0, 1, 0, 0]])

  def test_matches_the_definition(self):
    labels = jnp.array([[[0, 2], [255, 2]]])
    logits = jnp.array([[0.3, -1.2, 0.7]])
    p = 1 / (1 + np.exp(-np.asarray(logits[0], np.float64)))
    expected = -(np.log(p[0]) + np.log(1 - p[1]) + np.log(p[2]))
    total, count = losses.presence_bce(logits, labels)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    self.assertEqual(count, 3)

  def test_knowing_nothing_costs_log_two_per_class(self):
    labels = jnp.zeros((2, 4, 4), jnp.int32)
    total, count = losses.presence_bce(jnp.zeros((2, 5)), labels)
    np.testing.assert_allclose(total / count, np.log(2), rtol=1e-6)


if __name__ == "__main__":
  absltest.main()
