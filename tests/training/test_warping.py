"""Crops of the devices are those of the host."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import cv2
import jax
import numpy as np

from ctxseg_jax.data import transforms
from ctxseg_jax.training import warping

PAD = (10.0, 120.0, 240.0)
SIZES = ((37, 52), (60, 24))


def both(augmentation, num_seeds=8):
  """Returns batches of both sides, of noise in one canvas."""
  rng = np.random.default_rng(0)
  unwarped = transforms.Unwarped(augmentation, (60, 52))
  host, device = [], []
  for seed in range(num_seeds):
    size = SIZES[seed % len(SIZES)]
    example = {
        "image": rng.integers(0, 256, (*size, 3), np.uint8),
        "label": rng.integers(0, 20, size, np.uint8),
    }
    host.append(augmentation(example, np.random.default_rng(seed)))
    device.append(unwarped(example, np.random.default_rng(seed)))
  stack = functools.partial(jax.tree.map, lambda *x: np.stack(x))
  options = {
      name: getattr(augmentation, name)
      for name in ("crop_size", "pad_color", "ignore_label")
  }
  warped = jax.jit(functools.partial(warping.warp, **options))(stack(*device))
  return stack(*host), jax.device_get(warped)


class WarpTest(parameterized.TestCase):

  @parameterized.parameters(
      {},
      # So small a share that every crop is drawn again.
      dict(cat_max_ratio=0.04),
  )
  @absltest.skipIf(cv2.__version__ < "5", "before, coordinates were rounded")
  def test_equals_the_host_within_one_grey_level(self, **options):
    augmentation = transforms.Augmentation(
        crop_size=(30, 41),
        scale_range=(0.4, 2.2),
        rotation=25.0,
        flip=True,
        pad_color=PAD,
        ignore_label=200,
        **options,
    )
    host, device = both(augmentation)
    self.assertLess(np.abs(host["image"] - device["image"]).max(), 1.01)
    self.assertEqual(device["label"].dtype, np.uint8)
    # All but those between two pixels, which are few.
    self.assertLess(np.mean(host["label"] != device["label"]), 2e-3)
    self.assertGreater(np.mean(host["label"] == 200), 0.05)

  def test_a_crop_that_is_not_resampled_is_equal(self):
    augmentation = transforms.Augmentation(
        crop_size=(30, 41), flip=True, pad_color=PAD
    )
    host, device = both(augmentation)
    for name in ("image", "label"):
      np.testing.assert_array_equal(host[name], device[name])

  @parameterized.parameters(
      dict(blur_rate=0.5), dict(photometric_distortion=True)
  )
  def test_what_follows_the_warp_needs_the_host(self, **options):
    with self.assertRaisesRegex(ValueError, "^warp: 'device'.*use 'host'"):
      transforms.Augmentation((30, 41), warp="device", **options)


if __name__ == "__main__":
  absltest.main()
