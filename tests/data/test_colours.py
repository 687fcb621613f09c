"""Blur, photometric distortion and crops that one class fills."""

import colorsys
import math

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from ctxseg_jax.data import blur
from ctxseg_jax.data import class_shares
from ctxseg_jax.data import distortion
from ctxseg_jax.data import transforms
from ctxseg_jax.data.distortion import Distortion

PAD = (10.0, 120.4, 239.6)


def make_example(height=24, width=30, seed=0):
  rng = np.random.default_rng(seed)
  return {
      "image": rng.integers(0, 256, (height, width, 3), np.uint8),
      "label": rng.integers(0, 20, (height, width), np.uint8),
  }


def convert(x, factor=1.0, offset=0.0):
  """A change of values as in mmsegmentation: rounded down to 8 bits."""
  return np.clip(x.astype(np.float32) * factor + offset, 0, 255).astype(int)


class BlurTest(absltest.TestCase):

  def test_a_point_becomes_a_gaussian(self):
    image = np.zeros((15, 15, 3), np.uint8)
    image[7, 7] = 255
    blurred = blur.blur(image, 1.0)
    weights = np.array([math.exp(-(x**2) / 2) for x in range(-7, 8)])
    weights /= weights.sum()
    expected = 255 * np.outer(weights, weights)
    self.assertLess(np.abs(blurred - expected[..., None]).max(), 1.0)
    self.assertGreater(expected[7, 7], 40)

  def test_none_is_bit_equal(self):
    image = make_example()["image"]
    np.testing.assert_array_equal(blur.blur(image, 0.0), image)


class DistortionTest(parameterized.TestCase):

  def test_brightness_and_contrast_by_hand(self):
    image = np.array([[[0, 100, 250], [33, 128, 255]]], np.uint8)
    change = Distortion(brightness=20.7, contrast=1.5)
    expected = [[[30, 180, 255], [79, 222, 255]]]  # 20, 120, 255, 53, 148 * 1.5
    np.testing.assert_array_equal(distortion.distort(image, change), expected)
    darker = Distortion(brightness=-50.0)
    np.testing.assert_array_equal(
        distortion.distort(image, darker), [[[0, 50, 200], [0, 78, 205]]]
    )

  @parameterized.parameters(True, False)
  def test_saturation_and_hue_by_colorsys(self, contrast_first):
    image = make_example()["image"]
    change = Distortion(
        contrast=0.9, contrast_first=contrast_first, saturation=0.6, hue=-11
    )
    found = distortion.distort(image, change).astype(int)
    expected = convert(image, 0.9) if contrast_first else image
    rows = []
    for color in expected.reshape(-1, 3):
      hue, saturation, value = colorsys.rgb_to_hsv(*(color / 255))
      hue, saturation = hue - 11 / 180, saturation * 0.6
      rows.append(colorsys.hsv_to_rgb(hue % 1, saturation, value))
    expected = 255 * np.reshape(rows, image.shape)
    expected = expected if contrast_first else 0.9 * expected
    # Hue in steps of 2 degrees, saturation and colours of 8 bits.
    self.assertLess(np.abs(found - expected).max(), 6)
    self.assertLess(np.abs(found - expected).mean(), 1)

  def test_nothing_changed_is_bit_equal(self):
    image = make_example()["image"]
    found = distortion.distort(image, Distortion())
    np.testing.assert_array_equal(found, image)

  def test_draws_have_mmsegmentations_ranges(self):
    rng = np.random.default_rng(0)
    drawn = [distortion.draw(rng) for _ in range(2_000)]
    default = Distortion()
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 17),
    ):
      values = np.array([getattr(x, name) for x in drawn])
      changed = values[values != getattr(default, name)]
      self.assertBetween(len(changed), 850, 1_150, name)
      self.assertBetween(changed.min(), low, low + 0.1 * (high - low), name)
      self.assertBetween(changed.max(), high - 0.1 * (high - low), high, name)
    self.assertBetween(sum(x.contrast_first for x in drawn), 900, 1_100)


class SharesTest(parameterized.TestCase):

  @parameterized.parameters(
      # Of 10 pixels with a label: 7 and 3; and one class alone.
      ([0] * 7 + [4] * 3 + [255] * 6, 0.75, True),
      ([0] * 7 + [4] * 3 + [255] * 6, 0.7, False),
      ([0] * 10 + [255] * 6, 0.99, False),
      ([255] * 16, 0.99, False),
  )
  def test_by_hand(self, pixels, most, expected):
    label = np.reshape(np.uint8(pixels), (4, 4))
    self.assertEqual(class_shares.is_mixed(label, most, 255), expected)


class AugmentationTest(parameterized.TestCase):

  def test_crops_are_drawn_again_until_no_class_fills_them(self):
    label = np.zeros((40, 80), np.uint8)
    label[:, 70:] = 1
    example = {"image": np.dstack([label * 9] * 3), "label": label}
    plain = transforms.Augmentation(crop_size=(40, 20))
    mixed = transforms.Augmentation(crop_size=(40, 20), cat_max_ratio=0.75)
    shares, retried = [], 0
    for seed in range(60):
      crops = [x(example, np.random.default_rng(seed)) for x in (plain, mixed)]
      np.testing.assert_array_equal(
          crops[1]["image"][..., 0], crops[1]["label"] * 9
      )
      share = crops[1]["label"].mean()
      shares.append(share)
      if 0.25 < crops[0]["label"].mean():  # Taken as it is.
        np.testing.assert_array_equal(crops[0]["label"], crops[1]["label"])
      else:
        retried += 1
    # 5 or fewer of 61 places are mixed enough: eleven draws find one for
    # 1 - (56 / 61) ** 11 = 61 % of the images, and one for 8 %.
    found = np.mean(np.array(shares) > 0.25)
    self.assertBetween(found, 0.4, 0.8)
    self.assertGreater(retried, 50)

  @parameterized.parameters(
      dict(photometric_distortion=True),
      dict(blur_rate=1.0, blur_sigma=(1.0, 2.0)),
  )
  def test_colours_change_inside_the_image_alone(self, **options):
    example = make_example(12, 9)
    geometry = dict(
        crop_size=(20, 21), scale_range=(0.8, 1.2), rotation=20.0, flip=True
    )
    changed = 0
    for seed in range(8):
      plain, other = (
          transforms.Augmentation(**geometry, **more, pad_color=PAD)(
              example, np.random.default_rng(seed)
          )
          for more in ({}, options)
      )
      np.testing.assert_array_equal(plain["label"], other["label"])
      outside = plain["label"] == 255
      self.assertTrue(0 < outside.sum() < outside.size)
      np.testing.assert_array_equal(
          other["image"][outside],
          np.tile(np.uint8([10, 120, 240]), (outside.sum(), 1)),
      )
      difference = np.abs(plain["image"].astype(int) - other["image"])
      changed += difference[~outside].mean() > 1
    self.assertGreater(changed, 5)

  def test_blur_has_its_share_of_images(self):
    example = make_example(64, 64)
    augmentation = transforms.Augmentation(
        crop_size=(64, 64), blur_rate=0.25, blur_sigma=(1.0, 1.0)
    )
    blurred = 0
    for seed in range(200):
      image = augmentation(example, np.random.default_rng(seed))["image"]
      if not np.array_equal(image, example["image"]):
        np.testing.assert_array_equal(image, blur.blur(example["image"], 1.0))
        blurred += 1
    self.assertBetween(blurred, 30, 70)

  def test_ranges_are_checked(self):
    with self.assertRaisesRegex(ValueError, "blur_sigma"):
      transforms.Augmentation(crop_size=(8, 8), blur_sigma=(2.0, 1.0))


if __name__ == "__main__":
  absltest.main()
