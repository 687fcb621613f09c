"""Labels as they are packed."""

from absl.testing import absltest
import cv2
import numpy as np

from ctxseg_jax.data import images
from ctxseg_jax.data import label_png


class LabelPngTest(absltest.TestCase):

  def test_every_value_comes_back_from_both_readers(self):
    label = np.random.default_rng(0).permutation(256).astype(np.uint8)
    for shape in ((16, 16), (1, 256), (256, 1)):
      data = label_png.encode(label.reshape(shape))
      found = images.decode_label(data)
      np.testing.assert_array_equal(found, label.reshape(shape))
      found = cv2.imdecode(np.frombuffer(data, np.uint8), -1)
      np.testing.assert_array_equal(found, label.reshape(shape))

  def test_areas_make_small_files(self):
    label = np.zeros((360, 480), np.uint8)
    for i in range(30):
      cv2.circle(label, (16 * i, 12 * i), 40, i, -1)
    size = len(label_png.encode(label))
    self.assertLess(size, 0.7 * len(images.encode_png(label)))


if __name__ == "__main__":
  absltest.main()
