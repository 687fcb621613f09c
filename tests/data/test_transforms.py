"""Tests for ctxseg_jax.data.transforms."""

import math

from absl.testing import absltest
from absl.testing import parameterized
import cv2
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import transforms

PAD = (10.0, 120.0, 240.0)


def _example(height=37, width=52, seed=0):
  rng = np.random.default_rng(seed)
  return {
      "image": rng.integers(0, 256, (height, width, 3), np.uint8),
      "label": rng.integers(0, 20, (height, width), np.uint8),
  }


def _reference_warp(image, label, matrix, crop_size, pad_color, ignore_label):
  """The warp pixel by pixel: what is outside has the colour of padding."""
  height, width = label.shape

  def color(y, x):
    inside = 0 <= y < height and 0 <= x < width
    return image[y, x].astype(np.float64) if inside else np.array(pad_color)

  warped_image = np.empty((*crop_size, 3))
  warped_label = np.empty(crop_size, np.uint8)
  # How far the nearest rule is from a tie, where rounding may go either way.
  margin = np.empty(crop_size)
  for row in range(crop_size[0]):
    for column in range(crop_size[1]):
      x, y = matrix @ np.array([column, row, 1.0])
      x0, y0 = math.floor(x), math.floor(y)
      fx, fy = x - x0, y - y0
      top = color(y0, x0) * (1 - fx) + color(y0, x0 + 1) * fx
      bottom = color(y0 + 1, x0) * (1 - fx) + color(y0 + 1, x0 + 1) * fx
      warped_image[row, column] = top * (1 - fy) + bottom * fy
      nearest_x, nearest_y = math.floor(x + 0.5), math.floor(y + 0.5)
      inside = 0 <= nearest_y < height and 0 <= nearest_x < width
      warped_label[row, column] = (
          label[nearest_y, nearest_x] if inside else ignore_label
      )
      margin[row, column] = min(abs(fx - 0.5), abs(fy - 0.5))
  return warped_image, warped_label, margin


class AugmentationTest(parameterized.TestCase):

  def test_nothing_drawn_is_bit_equal(self):
    example = _example()
    augmentation = transforms.Augmentation(crop_size=(37, 52), pad_color=PAD)
    for seed in range(5):
      warped = augmentation(example, np.random.default_rng(seed))
      for name in ("image", "label"):
        np.testing.assert_array_equal(warped[name], example[name])

  def test_crop_alone_is_a_slice_and_reaches_every_place(self):
    example = _example(height=6, width=9)
    augmentation = transforms.Augmentation(crop_size=(5, 6))
    places = set()
    for seed in range(100):
      warped = augmentation(example, np.random.default_rng(seed))
      for top in range(2):
        for left in range(4):
          part = (slice(top, top + 5), slice(left, left + 6))
          if np.array_equal(warped["image"], example["image"][part]):
            np.testing.assert_array_equal(
                warped["label"], example["label"][part]
            )
            places.add((top, left))
    self.assertLen(places, 8)

  def test_the_centre_is_cropped_if_asked(self):
    for size, crop in (((37, 52), (20, 31)), ((9, 50), (20, 31))):
      augmentation = transforms.Augmentation(crop, center=True)
      matrix = augmentation.draw(np.random.default_rng(0), *size)
      for shift, n, side in zip(
          matrix[:, 2], size[::-1], crop[::-1], strict=True
      ):
        # As many pixels before the crop as behind it, or one less.
        self.assertIn(n - side - 2 * shift, (-1, 0, 1))

  def test_flip_mirrors_half_of_the_time(self):
    example = _example()
    augmentation = transforms.Augmentation(crop_size=(37, 52), flip=True)
    flipped = 0
    for seed in range(100):
      warped = augmentation(example, np.random.default_rng(seed))
      is_flipped = np.array_equal(warped["image"], example["image"][:, ::-1])
      step = -1 if is_flipped else 1
      for name in ("image", "label"):
        np.testing.assert_array_equal(warped[name], example[name][:, ::step])
      flipped += is_flipped
    self.assertBetween(flipped, 35, 65)

  def test_padding_is_the_colour_and_ignored(self):
    example = _example(height=4, width=7)
    augmentation = transforms.Augmentation(
        crop_size=(9, 20), pad_color=PAD, ignore_label=200
    )
    warped = augmentation(example, np.random.default_rng(0))
    outside = warped["label"] == 200
    self.assertEqual(np.sum(~outside), 4 * 7)
    np.testing.assert_array_equal(
        warped["image"][outside], np.tile(np.uint8(PAD), (9 * 20 - 28, 1))
    )
    np.testing.assert_array_equal(
        warped["image"][~outside], example["image"].reshape(-1, 3)
    )

  @parameterized.parameters(range(6))
  def test_matches_the_reference_at_the_same_matrix(self, seed):
    example = _example(seed=seed)
    augmentation = transforms.Augmentation(
        crop_size=(31, 44),
        scale_range=(0.5, 2.0),
        rotation=30.0,
        flip=True,
        pad_color=PAD,
    )
    matrix = augmentation.draw(np.random.default_rng(seed), 37, 52)
    warped = augmentation(example, np.random.default_rng(seed))
    image, label, margin = _reference_warp(
        example["image"], example["label"], matrix, (31, 44), PAD, 255
    )
    self.assertEqual(warped["image"].shape, (31, 44, 3))
    self.assertEqual(warped["image"].dtype, np.uint8)
    # OpenCV before 5 places samples on a grid of 1/32 pixel, which in noise of
    # full contrast is up to 8 levels an axis; OpenCV 5 only rounds the result.
    difference = np.abs(warped["image"] - image)
    exact = int(cv2.__version__.split(".")[0]) >= 5
    self.assertLessEqual(difference.max(), 0.51 if exact else 20.0)
    self.assertLessEqual(difference.mean(), 0.26 if exact else 2.0)
    clear = margin > 1 / 32
    self.assertGreater(clear.mean(), 0.8)
    np.testing.assert_array_equal(warped["label"][clear], label[clear])

  def test_image_and_label_move_together(self):
    # A smooth image made of its own label: any shift between them shows.
    ramp = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    example = {"image": np.dstack([ramp] * 3), "label": ramp}
    augmentation = transforms.Augmentation(
        crop_size=(40, 50), scale_range=(0.6, 1.7), rotation=45, flip=True
    )
    for seed in range(20):
      warped = augmentation(example, np.random.default_rng(seed))
      # Blended with the padding at the edge of the image: look inside.
      inside = _erode(warped["label"] != 255)
      self.assertGreater(inside.sum(), 100)
      difference = warped["image"][..., 1].astype(int) - warped["label"]
      # Nearest is at most half a pixel off along either axis.
      self.assertLessEqual(np.abs(difference[inside]).max(), 1)
      self.assertLess(abs(difference[inside].mean()), 0.1)

  def test_scale_keeps_the_edges_of_the_image(self):
    # Half-pixel centres: at scale 2 crop pixel 0 lies at -0.25 of the image.
    matrix = transforms.crop_matrix(
        (8, 12), 0, 0, scale=2.0, degrees=0.0, flip=False
    )
    np.testing.assert_allclose(matrix, [[0.5, 0, -0.25], [0, 0.5, -0.25]])

  def test_rotation_is_about_the_centre_of_the_crop(self):
    matrix = transforms.crop_matrix(
        (5, 9), 10, 20, scale=1.0, degrees=90.0, flip=False
    )
    np.testing.assert_allclose(matrix @ [4, 2, 1], [24, 12])
    np.testing.assert_allclose(matrix @ [5, 2, 1], [24, 13], atol=1e-12)

  def test_draws_stay_in_range(self):
    augmentation = transforms.Augmentation(
        crop_size=(30, 40), scale_range=(0.5, 2.0), rotation=10.0
    )
    rng = np.random.default_rng(0)
    for _ in range(200):
      matrix = augmentation.draw(rng, 50, 60)
      scale = 1 / math.hypot(matrix[0, 0], matrix[1, 0])
      degrees = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
      self.assertBetween(scale, 0.5, 2.0)
      self.assertBetween(degrees, -10, 10)
      # The crop lies in the scaled image, or the image in the crop.
      x, y = matrix @ [19.5, 14.5, 1]
      for center, side, crop in ((x, 60, 40), (y, 50, 30)):
        start = (center + 0.5) * scale - crop / 2
        room = round(side * scale) - crop
        self.assertBetween(start, min(0, room) - 1e-9, max(0, room) + 1e-9)

  @parameterized.parameters(
      # The expected factors are mmsegmentation's for (2048, 512), and the two
      # one-sided rules of PyTorch-Encoding's history.
      (dict(short_side=512, long_side=2048), (256, 300), 2.0),
      (dict(short_side=512, long_side=2048), (256, 2048), 1.0),
      (dict(short_side=520), (500, 375), 520 / 375),
      (dict(long_side=520), (500, 375), 520 / 500),
      (dict(), (500, 375), 1.0),
  )
  def test_sides_say_what_a_scale_of_one_is(self, sides, size, factor):
    self.assertEqual(
        transforms.fit_scale(
            size, sides.get("short_side"), sides.get("long_side")
        ),
        factor,
    )
    augmentation = transforms.Augmentation(
        crop_size=(30, 40), scale_range=(0.5, 2.0), **sides
    )
    plain = transforms.Augmentation(crop_size=(30, 40), scale_range=(0.5, 2.0))
    matrices = [
        a.draw(np.random.default_rng(3), *size) for a in (augmentation, plain)
    ]
    np.testing.assert_allclose(matrices[0][0, 0] * factor, matrices[1][0, 0])

  def test_switching_one_part_off_leaves_the_others(self):
    options = dict(crop_size=(30, 40), scale_range=(0.5, 2.0))
    for seed in range(10):
      with_flip, without = (
          transforms.Augmentation(flip=flip, **options).draw(
              np.random.default_rng(seed), 50, 60
          )
          for flip in (True, False)
      )
      np.testing.assert_allclose(np.abs(with_flip[0, 0]), without[0, 0])
      np.testing.assert_allclose(with_flip[1], without[1])

  @parameterized.parameters(
      ("crop_size", 480, (480,), (0, 480), (480.5, 480), ("a", 480)),
      ("crop_size", (math.inf, 480), (40_000, 8), (30_000, 30_000)),
      ("scale_range", (2.0, 0.5), (0.0, 1.0), (1.0, 1e6), 1.5, (1.0, math.nan)),
      ("rotation", -1, math.nan),
      ("short_side", 0),
      ("long_side", 10**9),
  )
  def test_bad_settings_are_named(self, field, *values):
    for value in values:
      with self.assertRaisesRegex(ValueError, f"^{field}: .*expected"):
        transforms.Augmentation(**{"crop_size": (8, 8), field: value})


class PaddedCropTest(parameterized.TestCase):

  def test_all_81_positions_and_both_sides_occur_alike(self):
    augmentation = transforms.PaddedCrop((32, 32), padding=4, flip=True)
    example = _example(32, 32) | {"label": np.uint8(7)}
    padded = np.pad(example["image"], ((4, 4), (4, 4), (0, 0)))
    windows = {}
    for top in range(9):
      for left in range(9):
        window = padded[top : top + 32, left : left + 32]
        windows[window.tobytes()] = (top, left, False)
        windows[window[:, ::-1].tobytes()] = (top, left, True)
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(windows.values(), 0)
    for _ in range(162 * 20):
      out = augmentation(example, rng)
      self.assertEqual(out["label"], 7)
      counts[windows[out["image"].tobytes()]] += 1  # KeyError: no such crop.
    # 20 each on average; 1 % of a Poisson variable is outside of 9 to 33.
    self.assertBetween(min(counts.values()), 3, 20)
    self.assertBetween(max(counts.values()), 20, 45)

  def test_without_padding_and_flip_nothing_changes(self):
    example = _example(32, 32)
    out = transforms.PaddedCrop((32, 32))(example, np.random.default_rng(0))
    np.testing.assert_array_equal(out["image"], example["image"])

  def test_positions_do_not_depend_on_the_flip(self):
    example = _example(32, 32)
    plain = transforms.PaddedCrop((32, 32), padding=4)
    flipped = transforms.PaddedCrop((32, 32), padding=4, flip=True)
    for seed in range(8):
      a = plain(example, np.random.default_rng(seed))["image"]
      b = flipped(example, np.random.default_rng(seed))["image"]
      self.assertTrue(np.array_equal(a, b) or np.array_equal(a, b[:, ::-1]))

  @parameterized.parameters(
      ("crop_size", (0, 8)), ("padding", -1), ("padding", 10**6)
  )
  def test_bad_settings_are_named(self, field, value):
    with self.assertRaisesRegex(ValueError, f"^{field}: .*expected"):
      transforms.PaddedCrop(**{"crop_size": (8, 8), field: value})

  def test_a_crop_larger_than_the_image_is_named(self):
    example = {"image": np.zeros((4, 4, 3), np.uint8), "label": np.uint8(0)}
    with self.assertRaisesRegex(errors.UserError, "crop_size: .* 4x4"):
      transforms.PaddedCrop(crop_size=(8, 8))(example, np.random.default_rng(0))


def _erode(mask):
  inner = np.zeros_like(mask)
  inner[2:-2, 2:-2] = np.all(
      [
          mask[2 + dy : mask.shape[0] - 2 + dy, 2 + dx : mask.shape[1] - 2 + dx]
          for dy in (-2, 0, 2)
          for dx in (-2, 0, 2)
      ],
      axis=0,
  )
  return inner


if __name__ == "__main__":
  absltest.main()
