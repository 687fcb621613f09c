"""Canvases, windows, scales and flips: what a prediction must not depend on."""

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.evaluation import procedure
from ctxseg_jax.evaluation import segmentation
from ctxseg_jax.evaluation import tiling


class PixelModel(nn.Module):
  """Scores of a pixel from its own colour: no context at all."""

  @nn.compact
  def __call__(self, images, *, train=False, upsample=True):
    del train, upsample
    return {"logits": nn.Conv(4, (1, 1), name="conv")(images)}


class MeanModel(nn.Module):
  """Scores from the mean colour of the input: nothing but context."""

  @nn.compact
  def __call__(self, images, *, train=False, upsample=True):
    del train, upsample
    mean = jnp.mean(images, axis=(1, 2), keepdims=True)
    x = nn.Dense(3, use_bias=False, name="dense")(mean)
    return {"logits": jnp.broadcast_to(x, (*images.shape[:3], 3))}


def make_predictor(model=None, variables=None, num_devices=1, **fields):
  model = model or PixelModel()
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("data",))
  if variables is None:
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  predictor = segmentation.Predictor(
      model,
      mesh,
      mean=(127.0,) * 3,
      std=(60.0,) * 3,
      settings=procedure.Settings(**fields),
  )
  return predictor, variables


@functools.cache
def plain_predictor():
  """Returns what others are compared with; it keeps its compiled programs."""
  return make_predictor()


def predict(predictor, variables, images, **kw):
  return predictor.predict(variables, images, **kw)


def make_images(*sizes):
  rng = np.random.default_rng(0)
  return [rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in sizes]


def smooth_images(*sizes):
  """Images without detail, whose classes survive resizing."""
  images = []
  for h, w in sizes:
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    image = np.stack([200 * y, 200 * x, np.full_like(x, 100)], axis=-1)
    images.append(np.rint(image).astype(np.uint8))
  return images


class CanvasTest(parameterized.TestCase):

  def test_few_sizes_are_not_padded(self):
    sizes = np.array([[360, 480], [480, 360], [360, 480]])
    canvases, multiple = segmentation.plan_canvases(sizes, 8)
    np.testing.assert_array_equal(canvases, sizes)
    self.assertEqual(multiple, 1)

  @parameterized.parameters(1, 2, 5, 8)
  def test_many_sizes_fit_into_few_canvases(self, most):
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 700, size=(300, 2))
    canvases, _ = segmentation.plan_canvases(sizes, most)
    self.assertLessEqual(len(np.unique(canvases, axis=0)), most)
    self.assertTrue(np.all(canvases >= sizes))

  def test_every_image_is_in_one_group(self):
    predictor, _ = make_predictor(max_canvases=3, scales=(0.5, 1.0))
    sizes = np.random.default_rng(0).integers(5, 99, size=(41, 2))
    members = np.concatenate([ids for _, ids in predictor.plan(sizes)])
    np.testing.assert_array_equal(np.sort(members), np.arange(41))

  def test_calls_with_the_same_sizes_are_planned_once(self):
    predictor, variables = make_predictor()
    images = make_images((9, 12), (12, 9))
    with mock.patch.object(predictor, "plan", wraps=predictor.plan) as plan:
      first = predict(predictor, variables, images)
      again = predict(predictor, variables, images)
      self.assertEqual(plan.call_count, 1)
      turned = predict(predictor, variables, images[::-1])
      self.assertEqual(plan.call_count, 2)
      predict(predictor, variables, images[::-1], probabilities=True)
      self.assertEqual(plan.call_count, 3)
      halves = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables)
      predict(predictor, halves, images[::-1], probabilities=True)
      self.assertEqual(plan.call_count, 4)
    for expected, *others in zip(first, again, turned[::-1], strict=True):
      for other in others:
        np.testing.assert_array_equal(other, expected)


class WindowsTest(parameterized.TestCase):

  @parameterized.parameters(
      (1024, 769, 513, [0, 255]),
      (2048, 769, 513, [0, 513, 1026, 1279]),
      (480, 480, 320, [0]),
      (300, 480, 320, [0]),
      (481, 480, 320, [0, 1]),
  )
  def test_starts_follow_mmsegmentation(self, length, crop, stride, expected):
    self.assertEqual(tiling.window_starts(length, crop, stride), expected)


class PredictorTest(parameterized.TestCase):

  @parameterized.named_parameters(
      ("whole", {}),
      ("padded", dict(max_canvases=1)),
      ("flip", dict(flip=True)),
      ("padded_flip", dict(max_canvases=1, flip=True)),
      ("slide", dict(mode="slide", crop_size=(16, 24), stride=(9, 11))),
      ("slide_flip", dict(mode="slide", crop_size=(16, 24), flip=True)),
      ("devices", dict(num_devices=4, batch_size_per_device=2)),
  )
  def test_a_model_without_context_predicts_the_same(self, fields):
    images = make_images((30, 41), (1, 1), (33, 7))
    expected = predict(*plain_predictor(), images)
    found = predict(*make_predictor(**fields), images)
    for a, b in zip(expected, found, strict=True):
      np.testing.assert_array_equal(a, b)

  @parameterized.parameters(0.5, 0.7, 1.5, 2.0)
  def test_scaled_views_come_back_to_the_pixels_of_the_image(self, scale):
    images = smooth_images((60, 82), (77, 33))
    expected = predict(*plain_predictor(), images, probabilities=True)
    for fields in (dict(), dict(flip=True, max_canvases=1)):
      found = predict(
          *make_predictor(scales=(scale,), **fields),
          images,
          probabilities=True,
      )
      for a, b in zip(expected, found, strict=True):
        # A shift by one pixel would be 0.02 here.
        self.assertLess(np.abs(a - b)[2:-2, 2:-2].max(), 0.012)

  def test_sides_scale_every_image_to_one_size_and_back(self):
    images = smooth_images((60, 82), (77, 33))
    settings = dict(short_side=40, long_side=50)
    how = procedure.Settings(**settings)
    self.assertEqual(how.scaled_size((60, 82), 1.0), (37, 50))
    self.assertEqual(how.scaled_size((77, 33), 2.0), (100, 43))
    self.assertIn("short side 40, long side 50", how.describe())
    found = predict(*make_predictor(**settings), images, probabilities=True)
    for image, probabilities in zip(images, found, strict=True):
      scale = 50 / max(image.shape)
      same = predict(
          *make_predictor(scales=(scale,)), [image], probabilities=True
      )[0]
      np.testing.assert_allclose(probabilities, same, atol=1e-6)

  def test_padding_has_the_mean_colour(self):
    # The mean of a padded input is the image's, diluted by exact zeros after
    # normalisation, up to the rounding of the mean to whole grey levels.
    images = make_images((8, 8), (16, 16))
    predictor, variables = make_predictor(MeanModel(), max_canvases=1)
    small = predict(predictor, variables, images, probabilities=True)[0]
    kernel = variables["params"]["dense"]["kernel"]
    mean = (images[0].mean((0, 1)) - 127) / 60 / 4
    np.testing.assert_allclose(
        small[0, 0], jax.nn.softmax(mean @ kernel), atol=1e-5
    )

  def test_windows_of_a_context_model_are_averaged(self):
    # Two windows of 4 columns, moved by 2: the middle columns see both.
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 255
    predictor, variables = make_predictor(
        MeanModel(), mode="slide", crop_size=(4, 4), stride=(4, 2)
    )
    found = predict(predictor, variables, [image], probabilities=True)[0]
    kernel = np.asarray(variables["params"]["dense"]["kernel"], np.float64)
    x = (image / 1.0 - 127) / 60
    left, right = (x[:, i : i + 4].mean((0, 1)) @ kernel for i in (0, 2))
    for columns, logits in (
        ((0, 1), left),
        ((2, 3), (left + right) / 2),
        ((4, 5), right),
    ):
      expected = np.exp(logits) / np.exp(logits).sum()
      for column in columns:
        np.testing.assert_allclose(found[0, column], expected, atol=1e-5)

  def test_strides_other_than_the_default_stand_beside_the_score(self):
    slide = dict(mode="slide", crop_size=(96, 90))
    for stride, expected in (
        (None, "slide 96x90, scales 1"),
        ((64, 60), "slide 96x90, scales 1"),
        ((32, 60), "slide 96x90 every 32x60, scales 1"),
    ):
      settings = procedure.Settings(**slide, stride=stride)
      self.assertEqual(settings.describe(), expected)

  def test_probabilities_sum_to_one(self):
    images = make_images((9, 11))
    for fields in ({}, dict(scales=(0.5, 1.0, 1.25), flip=True)):
      found = predict(*make_predictor(**fields), images, probabilities=True)
      np.testing.assert_allclose(found[0].sum(-1), 1.0, atol=1e-5)

  def test_compilations_are_bounded_by_the_canvases(self):
    predictor, variables = make_predictor(max_canvases=2)
    predict(predictor, variables, make_images(*((n, n) for n in range(3, 40))))
    self.assertLessEqual(predictor.compilations(), 2)

  @parameterized.parameters(
      (dict(mode="tiles"), "mode"),
      (dict(mode="slide"), "crop_size"),
      (dict(scales=()), "scales"),
      (dict(scales=(0.0,)), "scales"),
      (dict(scales=(float("nan"),)), "scales.*nan"),
      (dict(scales=(1.0, float("inf"))), "scales.*inf"),
      (dict(scales=(1e6,)), "scales.*1000000"),
      (dict(crop_size=(0, 4)), "crop_size"),
      (dict(crop_size=(4, 4, 4)), "crop_size"),
      (dict(mode="slide", crop_size=(9, 9), stride=(0, 4)), "stride"),
      (dict(mode="slide", crop_size=(9, 9), stride=(9, 10)), "stride.*gaps"),
      (dict(flip=1), "flip"),
      (dict(max_canvases=0), "max_canvases"),
      (dict(short_side=0), "short_side"),
      (dict(batch_size_per_device=0), "batch_size_per_device"),
  )
  def test_impossible_settings_are_refused(self, fields, message):
    with self.assertRaisesRegex(ValueError, message):
      procedure.Settings(**fields)


if __name__ == "__main__":
  absltest.main()
