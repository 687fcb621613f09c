"""Views merged as in PyTorch-Encoding, against its procedure in plain loops."""

import math

from absl.testing import absltest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import test_segmentation

from ctxseg_jax.evaluation import procedure

MEAN, STD = 127.0, 60.0
CROP, LONG_SIDE, SCALES = 18, 32, (0.5, 1.5)


class LopsidedModel(nn.Module):
  """Scores from the colours around a pixel, and from those of all pixels."""

  @nn.compact
  def __call__(self, images, *, train=False, upsample=True):
    del train, upsample
    x = nn.Conv(4, (5, 5), name="conv")(images)
    return {"logits": 4 * x + jnp.mean(x, axis=(1, 2), keepdims=True)}


def resize(x, size):
  """Resizes [H, W, C] so that corners fall on corners, pixel by pixel."""
  out = np.empty((*size, x.shape[2]))
  for i in range(size[0]):
    for j in range(size[1]):
      y = i * (x.shape[0] - 1) / max(size[0] - 1, 1)
      z = j * (x.shape[1] - 1) / max(size[1] - 1, 1)
      top, left = int(y), int(z)
      bottom = min(top + 1, x.shape[0] - 1)
      right = min(left + 1, x.shape[1] - 1)
      y, z = y - top, z - left
      out[i, j] = (1 - y) * ((1 - z) * x[top, left] + z * x[top, right])
      out[i, j] += y * ((1 - z) * x[bottom, left] + z * x[bottom, right])
  return out


def merge(network, image):
  """Returns the scores of an image, [H, W, C]."""
  height, width = image.shape[:2]
  total = 0.0
  for scale in SCALES:
    long = math.ceil(LONG_SIDE * scale)
    if height > width:
      size = (long, int(1.0 * width * long / height + 0.5))
    else:
      size = (int(1.0 * height * long / width + 0.5), long)
    # Ours keeps 8 bits.
    view = np.rint(resize(image, size))
    rows, columns = (
        math.ceil(max(n - CROP, 0) / (2 * CROP // 3)) + 1 for n in size
    )
    scores, count = np.zeros((*size, 4)), np.zeros((*size, 1))
    for row in range(rows):
      for column in range(columns):
        top, left = row * (2 * CROP // 3), column * (2 * CROP // 3)
        part = view[top : top + CROP, left : left + CROP]
        black = np.zeros((CROP, CROP, 3))
        black[: part.shape[0], : part.shape[1]] = part
        logits = network(black) + network(black[:, ::-1])[:, ::-1]
        at = (slice(top, top + CROP), slice(left, left + CROP))
        scores[at] += np.exp(logits)[: part.shape[0], : part.shape[1]]
        count[at] += 1
    total = total + resize(scores / count, (height, width))
  return total


class MergingTest(absltest.TestCase):

  def test_as_in_the_authors_code(self):
    predictor, variables = test_segmentation.make_predictor(
        LopsidedModel(),
        mode="slide",
        merge="pytorch_encoding",
        crop_size=(CROP, CROP),
        long_side=LONG_SIDE,
        scales=SCALES,
        flip=True,
        max_canvases=1,
    )
    model = jax.jit(LopsidedModel().apply)

    def network(image):
      x = np.float32((image[None] - MEAN) / STD)
      return np.asarray(model(variables, x)["logits"][0], np.float64)

    images = test_segmentation.smooth_images((30, 25), (13, 40))
    images = [np.roll(x, 7, axis=1) for x in images]  # With an edge in it.
    found = predictor.predict(variables, images, probabilities=True)
    for image, probabilities in zip(images, found, strict=True):
      expected = merge(network, image)
      expected /= expected.sum(axis=-1, keepdims=True)
      self.assertGreater(np.ptp(expected), 0.5)
      # Some colours lie on a tie of rounding.
      np.testing.assert_allclose(probabilities, expected, atol=5e-3)
      self.assertLess(np.abs(probabilities - expected).mean(), 3e-4)
    for classes, probabilities in zip(
        predictor.predict(variables, images), found, strict=True
    ):
      np.testing.assert_array_equal(classes, probabilities.argmax(axis=-1))

  def test_sizes_are_rounded_as_there(self):
    settings = procedure.Settings(long_side=520)
    # 375 * 390 / 500 is 292.5.
    self.assertEqual(settings.scaled_size((375, 500), 0.75), (293, 390))
    self.assertEqual(settings.scaled_size((512, 683), 1.75), (682, 910))

  def test_what_is_merged_stands_beside_the_score(self):
    with self.assertRaisesRegex(ValueError, "merge: .* needs mode 'slide'"):
      procedure.Settings(merge="pytorch_encoding")
    settings = procedure.Settings(
        mode="slide", crop_size=(9, 9), merge="pytorch_encoding"
    )
    self.assertEndsWith(settings.describe(), ", merged as PyTorch-Encoding")


if __name__ == "__main__":
  absltest.main()
