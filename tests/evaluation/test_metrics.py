"""The confusion matrix and the scores, by hand and by scikit-learn."""

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax.numpy as jnp
import numpy as np
import sklearn.metrics

from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.evaluation import metrics

# Two images, five classes: class 3 is predicted but never labelled, class 4
# does not occur at all, and one image has ignored pixels.
LABELS = (
    np.array([[0, 0, 1, 1], [0, 2, 2, 1], [255, 2, 2, 255]]),
    np.array([[1, 1, 0], [0, 2, 0]]),
)
PREDICTIONS = (
    np.array([[0, 1, 1, 1], [0, 2, 2, 3], [0, 2, 0, 2]]),
    np.array([[1, 0, 0], [3, 2, 2]]),
)
CONFUSION = np.array(
    [
        [3, 1, 1, 1, 0],
        [1, 3, 0, 1, 0],
        [1, 0, 4, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)


class ConfusionTest(chex.TestCase):

  def test_counts_by_hand(self):
    total = sum(
        np.asarray(metrics.confusion_matrix(x, y, 5))
        for x, y in zip(LABELS, PREDICTIONS, strict=True)
    )
    np.testing.assert_array_equal(total, CONFUSION)

  @chex.variants(with_jit=True, without_jit=True)
  def test_equals_scikit_learn(self):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 21, size=(3, 40, 30)).astype(np.uint8)
    predictions = rng.integers(0, 21, size=(3, 40, 30)).astype(np.uint8)
    labels[rng.uniform(size=labels.shape) < 0.1] = 255
    ours = self.variant(lambda x, y: metrics.confusion_matrix(x, y, 21))(
        labels, predictions
    )
    valid = labels != 255
    theirs = sklearn.metrics.confusion_matrix(
        labels[valid], predictions[valid], labels=np.arange(21)
    )
    np.testing.assert_array_equal(ours, theirs)
    self.assertEqual(ours.dtype, jnp.int32)
    np.testing.assert_allclose(
        metrics.scores(ours)["iou"],
        sklearn.metrics.jaccard_score(
            labels[valid], predictions[valid], average=None
        ),
    )

  def test_counts_past_the_end_of_float32(self):
    # float32 cannot count to 2 ** 24 + 1.
    n = 2**24 + 1
    out = metrics.confusion_matrix(
        jnp.zeros(n, jnp.uint8), jnp.zeros(n, jnp.uint8), 2
    )
    self.assertEqual(int(out[0, 0]), n)

  def test_values_that_are_no_class_are_not_counted(self):
    out = metrics.confusion_matrix([0, 7, 1, -1], [0, 0, 9, 0], 2)
    np.testing.assert_array_equal(out, [[1, 0], [0, 0]])


class ScoresTest(parameterized.TestCase):

  @parameterized.parameters(
      ("mmseg", 0.385417, 4),
      ("emanet", 0.385417, 4),
      ("pytorch_encoding", 0.308333, 5),
      ("background_as_zero", 0.256944, 6),
      ("semseg", 0.308333, 5),
      ("paddleseg", 0.508333, 5),
      ("detectron2", 0.513889, 3),
      ("torchvision", float("nan"), 5),
  )
  def test_mean_iou_by_protocol(self, protocol, miou, averaged):
    scores = metrics.scores(CONFUSION, protocol)
    np.testing.assert_allclose(scores["miou"], miou, atol=1e-6)
    self.assertEqual(scores["num_classes_averaged"], averaged)
    self.assertEqual(scores["protocol"], protocol)

  @parameterized.parameters(
      (0.526, 0.5172, 51.7), (0.530, 0.5212, 52.1), (0.553, 0.5438, 54.4)
  )
  def test_pascal_context_of_60_classes_as_published(
      self, miou, expected, published
  ):
    # EncNet's and SANet's papers have both figures; ours follow from networks
    # of 59 classes, each of which has the same IoU here.
    hits = round(10_000 * miou)
    wrong = (10_000 - hits) // 2  # Hits, misses and false alarms: 10,000.
    confusion = hits * np.eye(59, dtype=int) + wrong * np.roll(
        np.eye(59, dtype=int), 1, axis=1
    )
    plain = metrics.scores(confusion)
    self.assertAlmostEqual(plain["miou"], miou, places=4)
    found = metrics.scores(confusion, "background_as_zero")
    self.assertEqual(found["num_classes_averaged"], 60)
    self.assertAlmostEqual(found["miou"], expected, places=4)
    self.assertEqual(round(100 * found["miou"], 1), published)
    beside = metrics.extra_figures(["miou_with_background"], plain, confusion)
    self.assertEqual(beside, {"miou_with_background": found["miou"]})

  def test_final_score_of_ade20k(self):
    scores = metrics.scores(CONFUSION)
    extra = metrics.extra_figures(["final_score"], scores, CONFUSION)
    np.testing.assert_allclose(
        extra["final_score"], (0.625 + 0.385417) / 2, atol=1e-6
    )

  def test_data_sets_name_figures_that_exist(self):
    named = {x for spec in DATASETS.values() for x in spec.extra_figures}
    self.assertSameElements(named, metrics.EXTRA_FIGURES)

  def test_companions(self):
    scores = metrics.scores(CONFUSION)
    self.assertEqual(scores["pixel_accuracy"], 0.625)
    np.testing.assert_allclose(scores["mean_accuracy"], 0.633333, atol=1e-6)
    np.testing.assert_allclose(scores["fwiou"], 0.505208, atol=1e-6)
    np.testing.assert_allclose(
        scores["iou"], [0.375, 0.5, 2 / 3, 0, np.nan], atol=1e-9
    )
    np.testing.assert_allclose(
        scores["accuracy"], [0.5, 0.6, 0.8, np.nan, np.nan], atol=1e-9
    )

  def test_counts_beyond_int32_stay_exact(self):
    big = np.array([[3 * 2**40, 1], [0, 1]])
    self.assertAlmostEqual(
        metrics.scores(big)["iou"][0], 3 * 2**40 / (3 * 2**40 + 1), places=15
    )

  def test_an_empty_matrix_has_no_scores(self):
    scores = metrics.scores(np.zeros((3, 3)))
    self.assertTrue(np.isnan(scores["miou"]))
    self.assertTrue(np.isnan(scores["pixel_accuracy"]))

  def test_an_unknown_protocol_is_refused(self):
    with self.assertRaisesRegex(ValueError, "mmsegg"):
      metrics.scores(CONFUSION, "mmsegg")


class ImagesTest(absltest.TestCase):

  def test_scores_by_hand(self):
    # An image of classes 0 and 1, one of class 2 alone, one without a label.
    hits = np.array([[3, 1, 0], [0, 0, 4], [0, 0, 0]])
    labelled = np.array([[4, 2, 0], [0, 0, 8], [0, 0, 0]])
    predicted = np.array([[4, 1, 1], [4, 0, 4], [0, 0, 0]])
    levels = np.zeros((3, 2, 4), int)
    levels[0, 1, 3] = levels[0, 0, 0] = 3
    levels[1, 1, 2] = 8
    scores = metrics.image_scores(hits, labelled, predicted, levels)
    nan = np.nan
    np.testing.assert_allclose(scores["miou"], [(3 / 5 + 1 / 2) / 2, 0.5, nan])
    np.testing.assert_allclose(scores["accuracy"], [4 / 6, 0.5, nan])
    np.testing.assert_allclose(scores["confidence"], [0.5, 0.625, nan])

  def test_calibration_by_hand(self):
    # Four levels in two bins: 10 of confidence 0.375, 30 of 0.625 and 0.875.
    counts = np.array([[0, 5, 0, 10], [0, 5, 10, 10]])
    found = metrics.calibration(counts, num_bins=2)
    np.testing.assert_array_equal(found["predictions"], [10, 30])
    confidence = (10 * 0.625 + 20 * 0.875) / 30
    np.testing.assert_allclose(found["confidence"], [0.375, confidence])
    np.testing.assert_allclose(found["accuracy"], [0.5, 20 / 30])
    ece = (10 * 0.125 + 30 * (confidence - 20 / 30)) / 40
    self.assertAlmostEqual(found["ece"], ece)


if __name__ == "__main__":
  absltest.main()
