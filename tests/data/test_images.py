"""Tests for ctxseg_jax.data.images."""

import io
import pathlib
import struct
import tempfile
import zlib

from absl.testing import absltest
from absl.testing import parameterized
import cv2
import hypothesis
from hypothesis import strategies as st
import numpy as np
from PIL import Image
from PIL import ImageOps

from ctxseg_jax import errors
from ctxseg_jax.data import images


def _encode(image, file_format="PNG", **kwargs):
  file = io.BytesIO()
  image.save(file, file_format, **kwargs)
  return file.getvalue()


def _photo(height=40, width=56):
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
  image = Image.fromarray(coarse).resize((width, height), Image.BILINEAR)
  return np.array(image)


def _header_only_png(height, width):
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  data = b"\x89PNG\r\n\x1a\n"
  for body in (b"IHDR" + header, b"IDAT" + zlib.compress(b""), b"IEND"):
    data += struct.pack(">I", len(body) - 4) + body
    data += struct.pack(">I", zlib.crc32(body))
  return data


PHOTO_JPEG = _encode(Image.fromarray(_photo()), "JPEG", quality=90)
PHOTO_PNG = _encode(Image.fromarray(_photo()))
OTHERS = [
    _encode(Image.fromarray(_photo()), "TIFF"),
    _encode(Image.fromarray(_photo()), "TIFF", compression="tiff_lzw"),
    *(_encode(Image.fromarray(_photo()), kind) for kind in ("BMP", "WEBP")),
]


class DecodeImageTest(parameterized.TestCase):

  def test_png_is_exact_and_rgb(self):
    np.testing.assert_array_equal(images.decode_image(PHOTO_PNG), _photo())

  def test_jpeg_has_red_first(self):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    data = _encode(Image.fromarray(red), "JPEG", quality=95)
    self.assertGreater(images.decode_image(data)[..., 0].min(), 150)
    self.assertLess(images.decode_image(data)[..., 2].max(), 50)

  @parameterized.parameters("PNG", "JPEG")
  def test_gray_becomes_three_equal_channels(self, file_format):
    gray = Image.fromarray(_photo()).convert("L")
    image = images.decode_image(_encode(gray, file_format))
    self.assertEqual(image.shape, (40, 56, 3))
    np.testing.assert_array_equal(image[..., 0], image[..., 2])

  def test_palette_becomes_its_colours(self):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    decoded = images.decode_image(_encode(image))
    self.assertEqual(decoded[0, 1].tolist(), [40, 50, 60])
    self.assertEqual(decoded[1, 0].tolist(), [70, 80, 90])

  def test_alpha_is_dropped(self):
    rgba = np.dstack([_photo(), np.zeros((40, 56), np.uint8)])
    decoded = images.decode_image(_encode(Image.fromarray(rgba)))
    np.testing.assert_array_equal(decoded, _photo())

  def test_sixteen_bits_keep_the_upper_eight(self):
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    decoded = images.decode_image(_encode(Image.fromarray(deep)))
    np.testing.assert_array_equal(decoded[..., 1], deep >> 8)

  @parameterized.parameters(10, 12, 14)
  def test_sixteen_bits_of_which_few_are_used_are_refused(self, depth):
    deep = np.linspace(0, 2**depth - 1, 256).astype(np.uint16).reshape(16, 16)
    gray = _encode(Image.fromarray(deep))
    rgb = cv2.imencode(".png", np.dstack([deep] * 3))[1].tobytes()
    for data in (gray, rgb, gray[:-12]):
      with self.assertRaisesRegex(
          errors.UserError, f"a.png: 16-bit image of values below {2**depth};"
      ):
        images.decode_image(data, "a.png")
    bright = _encode(Image.fromarray(deep << (16 - depth)))
    self.assertEqual(images.decode_image(bright).max(), 255)

  @parameterized.product(
      orientation=(*range(1, 9),), file_format=("JPEG", "PNG")
  )
  def test_exif_orientation_is_applied(self, orientation, file_format):
    exif = Image.Exif()
    exif[0x0110] = "camera"
    exif[0x0112] = orientation
    data = _encode(Image.fromarray(_photo()), file_format, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
      # Viewers and annotation tools turn it so.
      expected = np.array(ImageOps.exif_transpose(image))
    decoded = images.decode_image(data)
    np.testing.assert_allclose(decoded, expected, atol=3)  # Of two decoders.
    for size in (images.image_size, images.verify_image):
      self.assertEqual(size(data, "photo"), expected.shape[:2])

  @parameterized.parameters(
      b"", b"II*\0", b"XX*\0" + bytes(20), b"II*\0\xff\xff\xff\xff",
      b"II*\0\x08\0\0\0\xff\xff" + bytes(30),
      b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x09\0\0",
      b"MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\1\0\6\0\0",
  )  # fmt: skip
  def test_odd_exif_is_overlooked(self, tiff):
    body = b"Exif\0\0" + tiff
    head = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    data = PHOTO_JPEG[:2] + head + PHOTO_JPEG[2:]
    self.assertEqual(images.image_size(data, "photo"), (40, 56))
    self.assertEqual(images.decode_image(data).shape, (40, 56, 3))

  def test_reads_a_path(self):
    path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()), "a")
    path.write_bytes(PHOTO_PNG)
    np.testing.assert_array_equal(images.decode_image(path), _photo())

  def test_missing_file_is_named(self):
    with self.assertRaisesRegex(
        errors.UserError, "nowhere/a.png: no such file"
    ):
      images.decode_image("nowhere/a.png")

  @parameterized.named_parameters(
      ("truncated_jpeg", PHOTO_JPEG[:-200]),
      ("jpeg_without_end", PHOTO_JPEG[:-2]),
      ("truncated_png", PHOTO_PNG[: len(PHOTO_PNG) // 2]),
      ("empty", b""),
      ("text", b"<html>quota exceeded</html>"),
      ("gif", _encode(Image.fromarray(_photo()), "GIF")),
      ("jpeg_2000", _encode(Image.fromarray(_photo()), "JPEG2000")),
  )
  def test_unusable_bytes_are_named(self, data):
    with self.assertRaisesRegex(errors.UserError, "^street_7.jpg: ") as raised:
      images.decode_image(data, "street_7.jpg")
    self.assertNotIn("\n", str(raised.exception))
    self.assertNotIn("BytesIO", str(raised.exception))
    # By Pillow's decode alone: OpenCV before 5 accepts truncated JPEGs.
    with self.assertRaisesRegex(errors.UserError, "^street_7.jpg: "):
      images.verify_image(data, "street_7.jpg")

  def test_unverified_garbage_is_still_an_error(self):
    for data in (b"", b"text"):
      with self.assertRaisesRegex(errors.UserError, "a.png: cannot"):
        images.decode_image(data, "a.png", verify=False)

  def test_bomb_is_refused_by_its_header(self):
    data = _header_only_png(height=20_000, width=20_000)
    self.assertLess(len(data), 100)
    for decode in (images.decode_image, images.decode_label, images.image_size):
      with self.assertRaisesRegex(errors.UserError, "bomb.png: "):
        decode(data, "bomb.png")

  @hypothesis.settings(deadline=None, max_examples=150, derandomize=True)
  @hypothesis.given(
      st.sampled_from([PHOTO_JPEG, PHOTO_PNG, *OTHERS]),
      st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
      st.floats(0, 1),
  )
  def test_damage_never_raises_anything_else(self, data, changes, keep):
    damaged = bytearray(data)
    for place, value in changes:
      damaged[int(place * (len(damaged) - 1))] = value
    damaged = bytes(damaged[: round(len(damaged) * keep)])
    for decode in (images.decode_image, images.decode_label, images.image_size):
      try:
        decode(damaged, "a")
      except errors.UserError:
        pass


class DecodeLabelTest(parameterized.TestCase):

  @parameterized.parameters("L", "P")
  def test_indices_are_raw(self, mode):
    label = np.arange(256, dtype=np.uint8).reshape(8, 32)
    image = Image.fromarray(label, mode)
    if mode == "P":
      image.putpalette(np.random.default_rng(0).bytes(768))
    decoded = images.decode_label(_encode(image))
    np.testing.assert_array_equal(decoded, label)
    self.assertEqual(decoded.dtype, np.uint8)

  def test_palette_of_few_bits_keeps_its_indices(self):
    label = np.array([[0, 1, 2, 3]], np.uint8)
    image = Image.fromarray(label, "P")
    image.putpalette(list(range(12)))
    data = _encode(image, bits=2)
    np.testing.assert_array_equal(images.decode_label(data), label)

  @parameterized.named_parameters(
      ("rgb", Image.fromarray(_photo()), "PNG", "mode RGB"),
      ("rgba", Image.fromarray(_photo()).convert("RGBA"), "PNG", "mode RGBA"),
      ("gray_alpha", Image.new("LA", (4, 4)), "PNG", "mode LA"),
      ("deep", Image.fromarray(np.ones((4, 4), np.uint16)), "PNG", "mode I;16"),
      ("bits", Image.new("1", (4, 4)), "PNG", "mode 1"),
      ("jpeg", Image.new("L", (8, 8)), "JPEG", "expected a whole PNG"),
  )
  def test_other_files_are_refused(self, image, file_format, words):
    data = _encode(image, file_format)
    with self.assertRaisesRegex(errors.UserError, f"^mask.png: .*{words}"):
      images.decode_label(data, "mask.png")

  def test_a_label_is_not_turned(self):
    exif = Image.Exif()
    exif[0x0112] = 3
    data = _encode(Image.fromarray(_photo()[..., 0]), exif=exif)
    with self.assertRaisesRegex(errors.UserError, "mask.png: label with an EX"):
      images.decode_label(data, "mask.png")

  def test_truncated_label_is_refused(self):
    data = _encode(Image.fromarray(_photo()[..., 0]))
    with self.assertRaisesRegex(errors.UserError, "mask.png: "):
      images.decode_label(data[: len(data) // 2], "mask.png")


class EncodePngTest(absltest.TestCase):

  def test_round_trip(self):
    photo, label = _photo(), _photo()[..., 0]
    decoded = images.decode_image(images.encode_png(photo))
    np.testing.assert_array_equal(decoded, photo)
    decoded = images.decode_label(images.encode_png(label))
    np.testing.assert_array_equal(decoded, label)


if __name__ == "__main__":
  absltest.main()
