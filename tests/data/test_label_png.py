"""Labels as they are packed."""

from unittest import mock

from absl.testing import absltest
import cv2
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import images
from ctxseg_jax.data import label_png


class LabelPngTest(absltest.TestCase):

  def test_every_value_comes_back_from_both_readers(self):
    label = np.random.default_rng(0).permutation(256).astype(np.uint8)
    for shape in ((16, 16), (1, 256), (256, 1)):
      data = label_png.encode(label.reshape(shape))
      found = images.decode_label(data)
      np.testing.assert_array_equal(found, label.reshape(shape))
      found = label_png.decode(data, "label")
      np.testing.assert_array_equal(found, label.reshape(shape))

  def test_what_is_no_label_is_named(self):
    photograph = images.encode_png(np.zeros((4, 4, 3), np.uint8))
    part = label_png.encode(np.eye(99, dtype=np.uint8))[:-30]
    for data in (b"", b"GIF89a", photograph, part):
      with (
          mock.patch.object(cv2, "imdecode") as decode,
          self.assertRaisesRegex(errors.UserError, "^camvid/train/1: "),
      ):
        label_png.decode(data, "camvid/train/1")
      decode.assert_not_called()  # It would print a line of its own.

  def test_areas_make_small_files(self):
    label = np.zeros((360, 480), np.uint8)
    for i in range(30):
      cv2.circle(label, (16 * i, 12 * i), 40, i, -1)
    size = len(label_png.encode(label))
    self.assertLess(size, 0.7 * len(images.encode_png(label)))


if __name__ == "__main__":
  absltest.main()
