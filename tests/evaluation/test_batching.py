"""The one loop that batches images, and what a predictor refuses."""

import threading
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import test_segmentation

from ctxseg_jax import errors
from ctxseg_jax import memory
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import classification


class LoadAheadTest(absltest.TestCase):

  def test_examples_come_in_order_from_several_threads(self):
    threads = set()
    together = threading.Barrier(2)

    def load(i):
      threads.add(threading.get_ident())
      if i < 2:
        together.wait(timeout=10)  # A single thread would wait for ever.
      return i

    with mock.patch("os.cpu_count", return_value=2):
      self.assertEqual(
          list(batching.load_ahead(load, range(50))), list(range(50))
      )
    self.assertGreater(len(threads), 1)

  def test_no_more_is_read_than_the_consumer_will_soon_want(self):
    loaded = []
    with mock.patch("os.cpu_count", return_value=2):
      stream = batching.load_ahead(loaded.append, range(1000))
      next(stream)
    time.sleep(0.05)
    self.assertLess(len(loaded), 10)
    stream.close()
    self.assertLess(len(loaded), 10)

  def test_what_load_raises_comes_through(self):
    def load(i):
      if i == 3:
        raise errors.UserError("image 3 is damaged")
      return i

    stream = batching.load_ahead(load, range(1000))
    with self.assertRaisesRegex(errors.UserError, "image 3"):
      list(stream)


class PredictTest(parameterized.TestCase):

  @parameterized.parameters(
      {}, dict(num_devices=4), dict(batch_size_per_device=3)
  )
  def test_any_sizes_in_their_order(self, **fields):
    sizes = [(9, 4), (3, 7), (9, 4), (1, 1), (12, 12), (3, 7)]
    images = test_segmentation.make_images(*sizes)
    predictor, variables = test_segmentation.make_predictor(**fields)
    found = predictor.predict(variables, images)
    self.assertEqual([x.shape for x in found], sizes)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])[0, 0]
    for image, classes in zip(images, found, strict=True):
      scores = (image.astype(np.float32) - 127) / 60 @ kernel
      np.testing.assert_array_equal(classes, scores.argmax(-1))

  def test_views_are_made_by_the_threads_that_read(self):
    predictor, variables = test_segmentation.make_predictor(scales=(0.5, 2.0))
    make_views, by = predictor._views, set()

    def views(image):
      by.add(threading.get_ident())
      return make_views(image)

    with mock.patch.object(predictor, "_views", views):
      images = test_segmentation.make_images(*[(9, 4)] * 3)
      expected = predictor.predict(variables, images)
      self.assertNotIn(threading.get_ident(), by)
      with mock.patch.object(batching, "_MAX_BYTES_AHEAD", 1):
        found = predictor.predict(variables, images)
      self.assertIn(threading.get_ident(), by)  # Not ahead of their use.
    np.testing.assert_array_equal(found, expected)

  def test_images_of_one_size_share_the_way_back(self):
    predictor, variables = test_segmentation.make_predictor(max_canvases=1)
    images = test_segmentation.make_images(*[(9, 4)] * 3, (5, 7), (9, 4))
    with mock.patch.object(predictor, "put", wraps=predictor.put) as put:
      predictor.predict(variables, images)
    # Five images, and two matrices for each change of the size.
    self.assertEqual(put.call_count, 5 + 2 * 3)

  def test_no_image_and_variables_that_are_on_no_device(self):
    predictor, variables = test_segmentation.make_predictor(num_devices=2)
    self.assertEqual(predictor.predict(variables, []), [])
    [image] = test_segmentation.make_images((5, 6))
    [expected] = predictor.predict(variables, [image])
    [found] = predictor.predict(jax.device_get(variables), [image])
    np.testing.assert_array_equal(found, expected)

  @parameterized.parameters(
      (np.zeros((4, 4, 3), np.float32), "image 1.*float32"),
      (np.zeros((4, 4), np.uint8), r"image 1.*\[4, 4\]"),
      (np.zeros((4, 4, 4), np.uint8), r"image 1.*\[4, 4, 4\]"),
      (np.zeros((0, 4, 3), np.uint8), r"image 1.*\[0, 4, 3\]"),
      ("photo.png", "image 1.*str"),
  )
  def test_what_is_no_image_is_refused(self, image, message):
    predictor, variables = test_segmentation.plain_predictor()
    with self.assertRaisesRegex(ValueError, message):
      predictor.predict(variables, [np.zeros((4, 4, 3), np.uint8), image])


class MemoryTest(absltest.TestCase):
  """Nothing is allocated that the machine does not have."""

  def shares(self, num_images, **fields):
    """Returns how many images a device worked on at once."""
    predictor, variables = test_segmentation.make_predictor(**fields)
    images = test_segmentation.make_images(*[(100, 100)] * num_images)
    batches = predictor.batches(
        variables,
        np.array([[100, 100]] * num_images),
        lambda i: {"image": images[i]},
    )
    return [batch.share for batch in batches]

  def test_few_images_make_a_small_batch(self):
    self.assertEqual(self.shares(1, batch_size_per_device=10**9), [1])
    self.assertEqual(self.shares(3, batch_size_per_device=10**9), [4])
    self.assertEqual(self.shares(7, batch_size_per_device=3), [3, 3, 3])

  def test_batches_become_smaller_until_there_is_memory(self):
    # An image is 0.03 MB, its logits are 0.16 MB.
    with mock.patch.object(memory, "free_host_bytes", return_value=1.0e6):
      self.assertEqual(self.shares(8, batch_size_per_device=8), [2] * 4)
    self.assertEqual(
        self.shares(8, batch_size_per_device=8, memory_gb=1.2e-3), [2] * 4
    )
    with mock.patch.object(memory, "free_host_bytes", return_value=1e5):
      with self.assertRaisesRegex(errors.UserError, "1 image of 100x100"):
        self.shares(8, batch_size_per_device=8)

  def test_windows_without_bounds_are_refused(self):
    predictor, variables = test_segmentation.make_predictor(
        mode="slide", crop_size=(10**7, 10**7), stride=(1, 1)
    )
    images = test_segmentation.make_images((60, 80))
    with self.assertRaisesRegex(
        errors.UserError, "10000000x10000000.*GB free; lower crop_size"
    ):
      predictor.predict(variables, images)

  def test_classification_too(self):
    predictor = classification.Predictor(
        test_segmentation.PixelModel(),
        jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",)),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        settings=classification.Settings(10**9),
        crop_size=(32, 32),
    )
    _, variables = test_segmentation.plain_predictor()
    images = test_segmentation.make_images((60, 80))
    with mock.patch.object(memory, "free_host_bytes", return_value=10**4):
      with self.assertRaisesRegex(errors.UserError, "1 image of 32x32.*lower"):
        predictor.predict(variables, images)

  def test_the_free_memory_of_this_machine_is_known(self):
    self.assertBetween(memory.free_host_bytes(), 1e6, 1e15)


if __name__ == "__main__":
  absltest.main()
