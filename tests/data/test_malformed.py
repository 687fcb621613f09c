"""Every odd file of a user's has one behaviour: it is used, or named.

Each row of the tables puts one file into own data, which the command then
prepares: exit code 0 and the pixels as said, or exit code 2 and one line.
Faults of folders, lists and published layouts are in the tests of these.
"""

import io
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image
from PIL import PngImagePlugin
import running

from ctxseg_jax.data import check
from ctxseg_jax.data import custom
from ctxseg_jax.data import images
from ctxseg_jax.data import prepare
from ctxseg_jax.data import records
from ctxseg_jax.data import transforms

ROOT = pathlib.Path(__file__).parents[2]
SIZE = (40, 56)


def _photo(height=SIZE[0], width=SIZE[1]):
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 255, (5, 7, 3), np.uint8))
  return coarse.resize((width, height), Image.Resampling.BILINEAR)


def _ids(height=SIZE[0], width=SIZE[1]):
  return (np.indices((height, width)).sum(axis=0) // 9 % 4).astype(np.uint8)


def _encode(image, file_format="PNG", **kwargs):
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  file = io.BytesIO()
  image.save(file, file_format, **kwargs)
  return file.getvalue()


JPEG = _encode(_photo(), "JPEG", quality=95)
PNG = _encode(_photo())
LABEL = _encode(_ids())


def _chunk(kind, data):
  crc = struct.pack(">I", zlib.crc32(kind + data))
  return struct.pack(">I", len(data)) + kind + data + crc


def _png(size, depth, color_type, rows, *extra, interlaced=0):
  """Writes a PNG of raw rows, whatever they are."""
  header = struct.pack(
      ">IIBBBBB", *size[::-1], depth, color_type, 0, 0, interlaced
  )
  body = zlib.compress(b"".join(b"\0" + row for row in rows))
  chunks = [(b"IHDR", header), *extra, (b"IDAT", body), (b"IEND", b"")]
  return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _pack(ids, depth):
  """Returns rows of ids of few bits."""
  bits = np.unpackbits(ids[..., None], axis=-1)[..., 8 - depth :]
  return [np.packbits(row).tobytes() for row in bits.reshape(len(ids), -1)]


def _tiff_of_four_bits(ids):
  rows = (ids[:, ::2] << 4 | ids[:, 1::2]).tobytes()
  height, width = ids.shape
  tags = [(256, width), (257, height), (258, 4), (259, 1), (262, 1), (273, 8),
          (277, 1), (278, height), (279, len(rows))]  # fmt: skip
  data = b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows
  data += struct.pack("<H", len(tags))
  return (
      data
      + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
      + bytes(4)
  )


def _zip():
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("a.jpg", JPEG)
  return file.getvalue()


def _flip(data, at, bit=0x10):
  data = bytearray(data)
  data[at] ^= bit
  return bytes(data)


def _turned_by_exif(image, file_format="JPEG"):
  """Stores an image a quarter turned, to be turned back."""
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = image.transpose(Image.Transpose.ROTATE_90)
  options = {"JPEG": dict(quality=95), "WEBP": dict(lossless=True)}
  options = options.get(file_format, {})
  return _encode(turned, file_format, exif=exif, **options)


def _text_chunk():
  info = PngImagePlugin.PngInfo()
  info.add_text("comment", "a" * 100, zip=True)
  return _encode(_photo(), pnginfo=info)


def _interlaced():
  """Returns an interlaced PNG of one colour; Pillow only reads them."""
  rows = []
  for left, top, right, down in (
      (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
      (1, 0, 2, 2), (0, 1, 1, 2),
  ):  # fmt: skip
    row = b"\7" * 3 * len(range(left, SIZE[1], right))
    rows += [row] * len(range(top, SIZE[0], down))
  return _png(SIZE, 8, 2, rows, interlaced=1)


_HEADER = PNG[:33]
_WHOLE = "expected a whole JPEG or PNG file. Replace the file"
_MASK = r"expected one channel of class ids or values up to 65535 .*the classes"
_NOT = r"cannot be decoded \(not such a file\)"

BAD_IMAGES = {
    "nothing": (b"", _NOT),
    "zeros": (bytes(4096), _NOT),
    "text": (b"404 not found\n", _NOT),
    "html": (b"<!DOCTYPE html><html></html>", _NOT),
    "lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\n", _NOT),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', _NOT),
    "postscript": (_encode(_photo(), "EPS"), _NOT),
    "pdf": (_encode(_photo(), "PDF"), _NOT),
    "zip": (_zip(), _NOT),
    "half_a_bmp": (_encode(_photo(), "BMP")[:3000], "cannot be decoded"),
    "half_a_webp": (_encode(_photo(), "WEBP")[:300], "cannot be decoded"),
    "half_a_tiff": (_encode(_photo(), "TIFF")[:3000], "cannot be decoded"),
    "tiff_of_floats": (_encode(_photo().convert("F"), "TIFF"),
        "image of mode F; expected 8 or 16 bits"),
    "dark_tiff": (_encode(Image.fromarray(_ids().astype(np.uint16)), "TIFF"),
        "16-bit image of values below 256"),
    "ppm": (_encode(_photo(), "PPM"), _NOT),
    "jpeg_2000": (_encode(_photo(), "JPEG2000"), _NOT),
    "ico": (_encode(_photo(), "ICO"), _NOT),
    "numpy": (b"\x93NUMPY\x01\x00", _NOT),
    "jpeg_start_alone": (JPEG[:2], "cannot be decoded"),
    "jpeg_header_alone": (JPEG[:100], "cannot be decoded"),
    "jpeg_tables_alone": (JPEG[:400], "cannot be decoded"),
    "jpeg_three_quarters": (JPEG[: len(JPEG) * 3 // 4], "cannot be decoded"),
    "jpeg_last_byte_lost": (JPEG[:-1], "cannot be decoded"),
    "jpeg_after_junk": (b"\0" * 16 + JPEG, _NOT),
    "png_signature_alone": (PNG[:8], "cannot be decoded"),
    "png_header_alone": (_HEADER, "cannot be decoded"),
    "png_half": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "png_bit_of_header": (_flip(PNG, 19), "cannot be decoded"),
    "png_bit_of_signature": (_flip(PNG, 1), _NOT),
    "png_bit_of_pixels": (_flip(PNG, len(PNG) // 2), "cannot be decoded"),
    "png_text_mode": (PNG.replace(b"\r\n", b"\n"), _NOT),
    "png_of_no_rows": (_png((0, 5), 8, 2, []), "cannot be decoded"),
    "png_of_no_columns": (_png((5, 0), 8, 2, [b""] * 5), "cannot be decoded"),
    "png_rows_lost": (_png(SIZE, 8, 2, [bytes(SIZE[1] * 3)] * 39),
        "cannot be decoded"),
    "png_without_pixels": (_png(SIZE, 8, 2, []), "cannot be decoded"),
    "png_unknown_depth": (_png(SIZE, 3, 2, []), "cannot be decoded"),
    "png_90_megapixels": (_png((9_000, 10_000), 8, 2, []),
        "9000x10000 pixels; expected at most 64 megapixels"),
    "png_400_megapixels": (_png((20_000, 20_000), 8, 2, []),
        r"cannot be decoded \(Image size \(400000000 pixels\) exceeds"),
    "png_of_the_largest_size": (_png((2**31 - 1, 2**31 - 1), 8, 2, []),
        r"cannot be decoded \(Image size"),
    "png_text_bomb": (
        _png(
            SIZE, 8, 2, [bytes(SIZE[1] * 3)] * SIZE[0],
            (b"zTXt", b"a\0\0" + zlib.compress(bytes(40_000_000))),
        ),
        "cannot be decoded"),
    "jpeg_bomb": (# Another size, at the place where the header tells it.
        JPEG.replace(
            struct.pack(">BHH", 8, *SIZE),
            struct.pack(">BHH", 8, 60_000, 60_000),
        ),
        r"cannot be decoded \(Image size \(3600000000 pixels\)"),
}  # fmt: skip

BAD_LABELS = {
    "nothing": (b"", _NOT),
    "text": (b"0 0 0 1 1 1\n", _NOT),
    "half": (LABEL[: len(LABEL) // 2], "cannot be decoded"),
    "bit_of_pixels": (_flip(LABEL, len(LABEL) // 2), "cannot be decoded"),
    "rows_lost": (_png(SIZE, 8, 0, [bytes(SIZE[1])] * 39),
        "cannot be decoded"),
    "jpeg": (_encode(_ids(), "JPEG"), "as JPEG, whose losses change values"),
    "webp": (_encode(_ids(), "WEBP"), _NOT),
    "half_a_tiff": (_encode(_ids(), "TIFF")[:900], "cannot be decoded"),
    "half_a_bmp": (_encode(_ids(), "BMP")[:1500], "cannot be decoded"),
    "tiff_of_floats": (_encode(Image.fromarray(_ids()).convert("F"), "TIFF"),
        f"label of mode F; {_MASK}"),
    "tiff_of_large_integers": (
        _encode(Image.fromarray(_ids().astype(np.int32) - 1), "TIFF"),
        f"label of values -1 to 2; {_MASK}"),
    "tiff_of_two_pages": (
        _encode(_ids(), "TIFF", save_all=True,
                append_images=[Image.fromarray(_ids())]),
        f"label of 2 pages; {_MASK}"),
    "turned_tiff": (_encode(_ids(), "TIFF", tiffinfo={274: 6}),
        "label with an EXIF orientation"),
    "gif": (_encode(_ids(), "GIF"), _NOT),
    "transparent": (np.dstack([_ids()] * 4),
        f"label of mode RGBA with transparent pixels; {_MASK}"),
    "sixteen_bits_rgb": (_png(SIZE, 16, 2, [bytes(SIZE[1] * 6)] * SIZE[0]),
        f"label of mode RGB and 16 bits; {_MASK}"),
    "sixteen_bits_and_alpha": (
        _png(SIZE, 16, 4, [bytes(SIZE[1] * 4)] * SIZE[0]),
        f"label of mode .* and 16 bits; {_MASK}"),
    "cmyk": (_encode(_photo().convert("CMYK"), "TIFF"),
        f"label of mode CMYK; {_MASK}"),
    "bomb": (_png((9_000, 10_000), 8, 0, []), "9000x10000 pixels; expected at"),
    "wider": (_ids(40, 57), r"label of 40x57 for .*photo.png of 40x56"),
    "transposed": (_ids(56, 40), r"label of 56x40 for .*photo.png of 40x56"),
    "one_pixel": (_ids(1, 1), r"label of 1x1 for .*photo.png of 40x56"),
    "value_of_no_class": (np.where(_ids() == 3, 4, _ids()),
        r"label value 4 \(\d+ pixels\); expected 0-3 for the classes and 255"),
    "value_254": (np.where(_ids() == 3, 254, _ids()),
        r"label value 254 \(\d+ pixels\); expected 0-3"),
    "all_values": (np.arange(40 * 56).reshape(SIZE).astype(np.uint8),
        r"label value 4 \(9 pixels\), .* and 243 more; expected 0-3"),
    "palette_of_no_class": (Image.fromarray(_ids() + 2).convert("P"),
        r"label value 4 \(\d+ pixels\), 5 \("),
    "mode_p_of_a_photo": (_photo().quantize(200),
        r"label value 4 \(\d+ pixels\)"),
}  # fmt: skip


def _rgb(image):
  return np.array(image.convert("RGB"))


_SQUARE = _photo(48, 48)
_DEEP = (np.arange(40 * 56).reshape(SIZE) * 29).astype(np.uint16)
_UPPER_BITS = np.dstack([(_DEEP >> 8).astype(np.uint8)] * 3)


def _lossless(image):
  """Returns an image as a PNG, and the pixels that it has to come out as."""
  return _encode(image), _rgb(image)


# Bytes, and the pixels that they have to come out as; None if by JPEG.
GOOD_IMAGES = {
    "jpeg": (JPEG, None),
    "png": (PNG, _rgb(_photo())),
    "progressive": (_encode(_photo(), "JPEG", quality=95, progressive=True),
        None),
    "multi_picture": (_encode(_photo(), "MPO", quality=95, save_all=True,
                append_images=[_photo()]),
        None),
    "cmyk": (_encode(_photo().convert("CMYK"), "JPEG", quality=95), None),
    "junk_after_the_end": (PNG + bytes(100), _rgb(_photo())),
    "jpeg_with_junk_after_the_end": (JPEG + bytes(100), None),
    "interlaced": (_interlaced(), np.full((*SIZE, 3), 7, np.uint8)),
    "compressed_text": (_text_chunk(), _rgb(_photo())),
    "png_without_end": (PNG[:-12], _rgb(_photo())),
    "png_without_checksum": (PNG[:-16], _rgb(_photo())),
    "png_cut_in_its_last_bytes": (PNG[:-18], _rgb(_photo())),
    "gray": _lossless(_photo().convert("L")),
    "gray_and_alpha": _lossless(_photo().convert("LA")),
    "transparent": (_encode(np.dstack([_photo(), np.zeros(SIZE, np.uint8)])),
        _rgb(_photo())),
    "palette": _lossless(_photo().quantize(16)),
    "one_bit": _lossless(_photo().convert("1")),
    "sixteen_bits": (_encode(_DEEP), _UPPER_BITS),
    "sixteen_bits_without_end": (_encode(_DEEP)[:-12], _UPPER_BITS),
    "turned_by_exif": (_turned_by_exif(_photo()), None),
    "square_turned_by_exif": (_turned_by_exif(_SQUARE), None),
    "one_pixel": _lossless(_photo(1, 1)),
    "one_row": _lossless(_photo(1, 99)),
    "one_column": _lossless(_photo(99, 1)),
    "odd_size": _lossless(_photo(37, 61)),
    "bmp": (_encode(_photo(), "BMP"), _rgb(_photo())),
    "webp": (_encode(_photo(), "WEBP", lossless=True), _rgb(_photo())),
    "lossy_webp": (_encode(_photo(), "WEBP"), None),
    "tiff": (_encode(_photo(), "TIFF"), _rgb(_photo())),
    "compressed_tiff": (_encode(_photo(), "TIFF", compression="tiff_lzw"),
        _rgb(_photo())),
    "tiff_of_sixteen_bits": (_encode(_DEEP, "TIFF"), _UPPER_BITS),
    "turned_tiff": (_turned_by_exif(_photo(), "TIFF"), _rgb(_photo())),
    "turned_webp": (_turned_by_exif(_photo(), "WEBP"), _rgb(_photo())),
}  # fmt: skip

# Bytes, of ids that come out as `_ids`.
_PALETTE = Image.fromarray(_ids(), "P")
_PALETTE.putpalette(np.random.default_rng(0).bytes(768))
_TRANSPARENT = _PALETTE.copy()
_TRANSPARENT.info["transparency"] = 1
GOOD_LABELS = {
    "gray": LABEL,
    "gray_and_alpha": _encode(Image.fromarray(_ids()).convert("LA")),
    "three_equal_channels": _encode(np.dstack([_ids()] * 3)),
    "sixteen_bits": _encode(_ids().astype(np.uint16)),
    "bmp": _encode(_ids(), "BMP"),
    "tiff": _encode(_ids(), "TIFF"),
    "tiff_of_sixteen_bits": _encode(_ids().astype(np.uint16), "TIFF"),
    "tiff_of_four_bits": _tiff_of_four_bits(_ids()),
    "tiff_of_thirty_two_bits": _encode(
        Image.fromarray(_ids().astype(np.int32)), "TIFF"
    ),
    "palette": _encode(_PALETTE),
    "palette_of_two_bits": _encode(_PALETTE, bits=2),
    "palette_of_four_bits": _encode(_PALETTE, bits=4),
    "palette_with_transparency": _encode(_TRANSPARENT, transparency=1),
    # Shallow gray, which readers spread over 0 to 255: 3 would come as 255.
    "gray_of_two_bits": _png(SIZE, 2, 0, _pack(_ids(), 2)),
    "gray_of_four_bits": _png(SIZE, 4, 0, _pack(_ids(), 4)),
    "junk_after_the_end": LABEL + bytes(10),
    "without_end": LABEL[:-12],
}


class MalformedTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder, "own")
    self.data_dir = pathlib.Path(folder, "data")
    for kind in ("images", "labels"):
      (self.root / kind).mkdir(parents=True)
    (self.root / "classes.txt").write_text("a\nb\nc\nd\n")
    # Sorted before, so that a digest of the folder has a sound image.
    self.write("images/a.png", PNG)
    self.write("labels/a.png", LABEL)

  def write(self, place, content):
    if not isinstance(content, bytes):
      content = _encode(content)
    (self.root / place).write_bytes(content)

  def prepare(self):
    flags = ["--dataset=custom", f"--source={self.root}"]
    code, _, err = running.run(prepare, *flags, f"--data_dir={self.data_dir}")
    return code, err

  def assert_refused(self, name, words):
    code, err = self.prepare()
    self.assertEqual(code, 2)
    self.assertEqual(err.count("\n"), 1)
    self.assertEmpty(list(self.data_dir.rglob("*.array_record*")))
    # And a check says the same.
    flags = ["--dataset=custom", f"--source={self.root}", "--num_workers=0"]
    _, out, _ = running.run(check, *flags)
    err = re.sub(r" \(and 1 more fault\)$|(?<=own)_\w{10}", "", err)
    out = re.sub("(?m)^fault: custom:", "fault: own:", out)
    self.assertIn(err.replace("error: ", "fault: ", 1), out)
    self.assertRegex(out, rf"(?m)^fault: /[^:]*/{name}: .*{words}")

  def stored(self):
    code, err = self.prepare()
    self.assertEqual((code, err), (0, ""))
    spec = custom.from_folder(self.root)
    return records.open_source(spec, "train", self.data_dir)[1]

  @parameterized.named_parameters((k, *v) for k, v in BAD_IMAGES.items())
  def test_bad_image(self, data, words):
    self.write("images/photo.jpg", data)
    self.write("labels/photo.png", LABEL)
    self.assert_refused("images/photo.jpg", words)

  @parameterized.named_parameters((k, *v) for k, v in BAD_LABELS.items())
  def test_bad_label(self, label, words):
    self.write("images/photo.png", PNG)
    self.write("labels/photo.png", label)
    self.assert_refused("labels/photo.png", words)

  @parameterized.named_parameters((k, *v) for k, v in GOOD_IMAGES.items())
  def test_good_image(self, data, pixels):
    self.write("images/photo.jpg", data)
    size = images.image_size(data, "photo.jpg")
    self.write("labels/photo.png", _ids(*size))
    example = self.stored()
    if pixels is None:
      difference = example["image"].astype(int) - _rgb(_photo(*size))
      self.assertLess(np.abs(difference).mean(), 8)
    else:
      np.testing.assert_array_equal(example["image"], pixels)
    # And it survives what training does to it.
    augment = transforms.Augmentation(
        (32, 32), scale_range=(0.5, 2.0), rotation=10.0, flip=True
    )
    crop = augment(example, np.random.default_rng(0))
    self.assertEqual(crop["image"].shape, (32, 32, 3))

  @parameterized.named_parameters(GOOD_LABELS.items())
  def test_good_label(self, data):
    self.write("images/photo.png", PNG)
    self.write("labels/photo.png", data)
    np.testing.assert_array_equal(self.stored()["label"], _ids())

  @parameterized.parameters(
      ("zip", _zip()), ("tar.gz", b"\x1f\x8b"), ("png", PNG)
  )
  def test_an_archive_is_no_source(self, suffix, data):
    path = self.root / f"camvid.{suffix}"
    path.write_bytes(data)
    for dataset in ("camvid", "custom"):
      code, _, err = running.run(
          prepare, f"--dataset={dataset}", f"--source={path}", "--data_dir=/no"
      )
      self.assertEqual(code, 2)
      self.assertRegex(err, r"^error: .*: (.*Not a directory|no such folder)")
      self.assertEqual(err.count("\n"), 1)

  def test_bombs_take_no_memory(self):
    self.write("images/photo.png", _png((20_000, 20_000), 8, 2, []))
    script = (
        "import resource, sys\n"
        "from ctxseg_jax import errors\n"
        "from ctxseg_jax.data import images\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "for decode in (images.decode_image, images.decode_label):\n"
        "  try:\n"
        "    decode(sys.argv[1])\n"
        "    sys.exit('read')\n"
        "  except errors.UserError:\n"
        "    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(self.root / "images/photo.png")],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
  absltest.main()
