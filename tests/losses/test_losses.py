"""Losses against hand-computed values; what must not count, does not."""

import functools

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import losses
from ctxseg_jax.losses import context


class CrossEntropyTest(parameterized.TestCase):

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
    total, n = losses.softmax_cross_entropy(
        jnp.asarray(logits), jnp.asarray(labels, jnp.uint8)
    )
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    self.assertEqual(n, count)

  def test_another_ignore_label(self):
    labels = jnp.array([[[7, 1]]])
    logits = jnp.zeros((1, 1, 2, 3))
    total, count = losses.softmax_cross_entropy(logits, labels, ignore_label=7)
    self.assertEqual(count, 1)
    np.testing.assert_allclose(total, np.log(3), rtol=1e-6)

  def test_class_weights_count_in_sum_and_count(self):
    logits = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
    labels = jnp.array([[[0, 2], [255, 2]]])
    weights = (0.5, 1.0, 3.0)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    total, count = losses.softmax_cross_entropy(
        logits, labels, class_weights=weights
    )
    expected = -(
        0.5 * log_p[0, 0, 0, 0]
        + 3.0 * log_p[0, 0, 1, 2]
        + 3.0 * log_p[0, 1, 1, 2]
    )
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(count, 6.5)

  def test_class_weights_must_be_one_number_per_class(self):
    logits = jnp.zeros((1, 2, 3))
    labels = jnp.zeros((1, 2), jnp.int32)
    for weights in ((1.0, 2.0), (1.0, 2.0, -3.0), ("a", "b", "c")):
      with self.assertRaisesRegex(ValueError, "^class_weights: expected"):
        losses.softmax_cross_entropy(logits, labels, class_weights=weights)

  def test_images_have_labels_too(self):
    logits = jax.random.normal(jax.random.key(0), (4, 10))
    labels = jnp.array([1, 9, 255, 3])
    total, count = losses.softmax_cross_entropy(logits, labels)
    valid = np.array([0, 1, 3])
    expected = -jax.nn.log_softmax(logits)[valid, labels[valid]].sum()
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    self.assertEqual(count, 3)


class ErrorRateTest(parameterized.TestCase):

  @parameterized.parameters("image", "pixel")
  def test_counts_what_is_not_the_highest_score(self, kind):
    size = {"image": (), "pixel": (1, 1)}[kind]
    logits = jnp.array([[1.0, 2.0, 0], [5, 1, 2], [0, 0, 9], [0, 0, 9]])
    labels = jnp.array([1, 2, 255, 2], jnp.uint8)
    total, count = losses.error_rate(
        logits.reshape(4, *size, 3), labels.reshape(4, *size)
    )
    self.assertEqual((total, count), (1, 3))


def random_example(seed=0, shape=(2, 6, 7), num_classes=4):
  """Returns logits and labels without class 3, some ignored."""
  rng = np.random.default_rng(seed)
  logits = 2.0 * rng.normal(size=(*shape, num_classes)).astype(np.float32)
  labels = rng.integers(0, num_classes - 1, size=shape)
  labels[rng.random(shape) < 0.2] = 255
  return jnp.asarray(logits), jnp.asarray(labels, jnp.uint8)


LABEL_LOSSES = sorted(set(losses.LOSSES) - {"mean_squared_residual"})


@functools.cache
def compiled(name):
  """Returns the mean of a loss and its gradient, as one program."""

  def mean(logits, labels):
    if name == "presence_bce":  # The scores of images: their first pixels'.
      logits = logits[:, 0, 0]
    total, count = losses.LOSSES[name](logits, labels)
    return total / jnp.maximum(count, 1)

  return jax.jit(jax.value_and_grad(mean))


class AllLossesTest(parameterized.TestCase):

  @parameterized.parameters(*LABEL_LOSSES)
  def test_ignored_pixels_do_not_matter(self, name):
    logits, labels = random_example()
    labels = labels.at[:, 0, 0].set(1)
    ignored = np.asarray(labels == 255)[..., None]
    other = np.where(ignored, 100.0 * logits[::-1] + 1.0, logits)
    value, grads = compiled(name)(logits, labels)
    again, _ = compiled(name)(other, labels)
    np.testing.assert_allclose(value, again, rtol=1e-6)
    np.testing.assert_array_equal(np.where(ignored, grads, 0.0), 0.0)
    if name != "error_rate":  # Without a gradient.
      self.assertGreater(np.abs(grads).max(), 1e-4)

  @parameterized.product(name=LABEL_LOSSES, size=(1.0, 1e4))
  def test_finite_where_everything_is_ignored(self, name, size):
    logits, labels = random_example()
    logits = size * logits
    ignored = jnp.full_like(labels, 255)
    value, grads = compiled(name)(logits, ignored)
    self.assertTrue(np.isfinite(value))
    self.assertTrue(np.all(np.isfinite(grads)))
    if name != "presence_bce":  # Absent classes are its subject.
      self.assertEqual(value, 0.0)
      np.testing.assert_array_equal(grads, 0.0)

  @parameterized.parameters(
      *sorted(set(LABEL_LOSSES) - {"presence_bce"})  # Every image counts.
  )
  def test_an_image_without_labels_does_not_count(self, name):
    logits, labels = random_example()
    value, grads = compiled(name)(logits, labels.at[0].set(255))
    alone, _ = compiled(name)(
        jnp.stack([logits[1], logits[1]]), jnp.stack([labels[1], labels[1]])
    )
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    np.testing.assert_array_equal(grads[0], 0.0)

  @parameterized.parameters(*LABEL_LOSSES)
  def test_the_sum_of_images_is_that_of_the_batch(self, name):
    logits, labels = random_example(shape=(4, 6, 7))
    if name == "presence_bce":
      logits = logits[:, 0, 0]
    options = dict(min_kept=10) if name == "ohem_cross_entropy" else {}
    loss = jax.jit(functools.partial(losses.LOSSES[name], **options))
    whole = loss(logits, labels)
    parts = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-5)

  @parameterized.parameters(*LABEL_LOSSES)
  def test_bfloat16_logits_are_summed_in_float32(self, name):
    logits, labels = random_example()
    rounded = logits.astype(jnp.bfloat16)
    value, _ = compiled(name)(rounded, labels)
    self.assertEqual(value.dtype, jnp.float32)
    exact, _ = compiled(name)(rounded.astype(jnp.float32), labels)
    np.testing.assert_allclose(value, exact, rtol=1e-6)


class OhemTest(parameterized.TestCase):

  @parameterized.parameters((0.5, 0), (0.5, 5), (0.01, 5), (0.01, 1000))
  def test_matches_loops(self, threshold, min_kept):
    logits, labels = random_example()
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    total, count = 0.0, 0
    for b in range(2):
      costs = sorted(
          (
              -log_p[b, y, x, labels[b, y, x]]
              for y, x in np.ndindex(6, 7)
              if labels[b, y, x] != 255
          ),
          reverse=True,
      )
      limit = costs[min(min_kept, len(costs) - 1)]
      kept = [c for c in costs if c > min(limit, -np.log(threshold))]
      total += sum(kept)
      count += len(kept)
    result = losses.ohem_cross_entropy(
        logits, labels, threshold=threshold, min_kept=min_kept
    )
    np.testing.assert_allclose(result, (total, count), rtol=1e-5)
    self.assertGreater(count, 0)


class FocalTest(parameterized.TestCase):

  def test_matches_loops(self):
    logits, labels = random_example()
    expected = 0.0
    for b, y, x in np.ndindex(labels.shape):
      if labels[b, y, x] == 255:
        continue
      for c in range(4):
        p = 1 / (1 + np.exp(-float(logits[b, y, x, c])))
        own = labels[b, y, x] == c
        p_t, a_t = (p, 0.3) if own else (1 - p, 0.7)
        expected -= a_t * (1 - p_t) ** 1.5 * np.log(p_t) / 4
    total, count = losses.focal(logits, labels, alpha=0.3, gamma=1.5)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    self.assertEqual(count, (labels != 255).sum())


class RegionsTest(parameterized.TestCase):

  # Class 0 is right in 2 of 3 pixels, taken for 1 once; class 1 in 1 of 1;
  # class 2 is predicted at an ignored pixel only.
  LABELS = jnp.array([[[0, 0, 0], [1, 255, 255]]])
  PREDICTED = jnp.array([[[0, 0, 1], [1, 2, 0]]])

  def _apply(self, loss, **options):
    logits = 100.0 * jax.nn.one_hot(self.PREDICTED, 3)
    return loss(logits, self.LABELS, **options)

  def test_lovasz_of_certain_predictions_is_one_minus_the_iou(self):
    total, count = self._apply(losses.lovasz_softmax)
    np.testing.assert_allclose(total, (1 / 3 + 1 / 2) / 2, rtol=1e-6)
    self.assertEqual(count, 1)

  def test_dice_of_certain_predictions_is_one_minus_the_coefficient(self):
    total, count = self._apply(losses.dice, epsilon=0.0)
    np.testing.assert_allclose(total, (1 - 4 / 5 + 1 - 2 / 3) / 2, rtol=1e-6)
    self.assertEqual(count, 1)

  def test_lovasz_keeps_its_digits_among_many_pixels(self):
    n = 100_000
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, n, 2)).astype(np.float32)
    labels = rng.integers(0, 2, size=(1, n))
    grads = jax.jit(
        jax.grad(lambda x: losses.lovasz_softmax(x, jnp.asarray(labels))[0])
    )(jnp.asarray(logits))
    p = 1 / (1 + np.exp(logits[0, :, ::-1] - logits[0]).astype(np.float64))
    expected = np.zeros(n)
    for c in range(2):
      own = labels[0] == c
      order = np.argsort(-np.abs(own - p[:, c]), kind="stable")
      union = own.sum() + np.cumsum(~own[order])
      jaccard = 1 - (own.sum() - np.cumsum(own[order])) / union
      steps = np.zeros(n)
      steps[order] = np.diff(jaccard, prepend=0.0)
      sign = np.where(own, -1, 1) * (1 if c == 0 else -1)
      expected += 0.5 * steps * sign * p[:, 0] * p[:, 1]
    error = np.abs(grads[0, :, 0] - expected) / np.abs(expected).max()
    # But for the neighbours that float32 puts in another order.
    self.assertLess(np.quantile(error, 0.99), 1e-3)


class ResidualTest(parameterized.TestCase):

  def test_mean_of_squares_over_all_elements(self):
    residual = jnp.array([[[1.0, -2.0], [0.0, 3.0]]], jnp.bfloat16)
    labels = jnp.full((1, 2, 2), 255)
    total, count = losses.mean_squared_residual(residual, labels)
    self.assertEqual((float(total), float(count)), (14.0, 4.0))


class PresenceTest(parameterized.TestCase):

  def test_presence_is_per_image_and_leaves_ignored_out(self):
    labels = jnp.array([[[0, 2], [255, 2]], [[1, 1], [1, 255]]])
    present = losses.class_presence(labels, 4)
    np.testing.assert_array_equal(present, [[1, 0, 1, 0], [0, 1, 0, 0]])
    # Also where the label that is ignored could be a class.
    present = losses.class_presence(labels, 4, ignore_label=2)
    np.testing.assert_array_equal(present, [[1, 0, 0, 0], [0, 1, 0, 0]])

  def test_classes_are_counted_alike_on_all_devices(self):
    labels = np.random.default_rng(0).integers(0, 9, (3, 50))
    expected = [[np.sum(x == c) for c in range(7)] for x in labels]
    for count in (context.count_by_index, context.count_by_comparison):
      found = count(7, jnp.asarray(labels))
      np.testing.assert_array_equal(found, expected)

  def test_area_is_the_share_of_the_labelled_pixels(self):
    labels = jnp.array(
        [[[0, 2], [255, 2]], [[1, 1], [1, 255]], [[255, 255]] * 2], jnp.uint8
    )
    expected = [[1 / 3, 0, 2 / 3, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    area = losses.class_area(labels, 4)
    np.testing.assert_allclose(area, expected, rtol=1e-6)
    logits = np.random.default_rng(0).normal(size=(3, 4))
    p = 1 / (1 + np.exp(-logits))
    expected = np.array(expected)
    expected = -expected * np.log(p) - (1 - expected) * np.log(1 - p)
    total, count = losses.presence_bce(
        jnp.asarray(logits), labels, targets="area"
    )
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)
    self.assertEqual(count, 12)

  def test_the_label_of_an_image_is_one_hot(self):
    present = losses.class_presence(jnp.array([2, 0, 255]), 3)
    np.testing.assert_array_equal(present, [[0, 0, 1], [1, 0, 0], [0, 0, 0]])

  def test_matches_the_definition(self):
    labels = jnp.array([[[0, 2], [255, 2]]])
    logits = jnp.array([[0.3, -1.2, 0.7]])
    p = 1 / (1 + np.exp(-np.asarray(logits[0], np.float64)))
    expected = -(np.log(p[0]) + np.log(1 - p[1]) + np.log(p[2]))
    total, count = losses.presence_bce(logits, labels)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    self.assertEqual(count, 3)
