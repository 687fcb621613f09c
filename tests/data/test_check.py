"""Tests for ctxseg_jax.data.check."""

import contextlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image
import running
import test_camvid

from ctxseg_jax import errors
from ctxseg_jax.data import check
from ctxseg_jax.data import custom
from ctxseg_jax.data import packing
from ctxseg_jax.data.datasets import DATASETS

ROOT = pathlib.Path(__file__).parents[2]


def _image(root, split="train", i=3):
  return root / f"images/{split}/{split}{i}.jpg"


def _label(root, split="train", i=3):
  return root / f"labels/{split}/{split}{i}.png"


def _save(array, path):
  Image.fromarray(np.asarray(array)).save(path)


def _map_labels(change, split="*"):
  """Returns a fault that changes the ids of every label."""

  def fault(root):
    for path in root.glob(f"labels/{split}/*.png"):
      _save(change(np.array(Image.open(path))).astype(np.uint8), path)

  return fault


def _copy(root, i, split, new):
  """Copies a pair of train, with the same names or others."""
  shutil.copy(_image(root, i=i), _image(root, split, new))
  shutil.copy(_label(root, i=i), _label(root, split, new))


def _set(root, value):
  raw = np.array(Image.open(_label(root)))
  raw[:2, :3] = value
  _save(raw, _label(root))


def _as_png(root, keep):
  """Replaces an image by a PNG of which the last bytes are lost."""
  file = io.BytesIO()
  Image.open(_image(root)).save(file, "PNG")
  _image(root).unlink()
  data = file.getvalue()
  _image(root).with_suffix(".png").write_bytes(data[: len(data) + keep])


def _blur(raw):
  image = Image.fromarray(raw).resize((90, 75), Image.Resampling.BICUBIC)
  return np.array(image.resize((60, 50), Image.Resampling.BICUBIC))


def _colors_to_gray(root):
  shutil.rmtree(root)
  miniatures.write_custom(root, colors=True)
  _map_labels(lambda rgb: np.array(Image.fromarray(rgb).convert("L")))(root)


def _reencode(root):
  """Puts an image of train into val, with other bytes of the same pixels."""
  pixels = Image.open(_image(root))
  pixels.save(root / "images/val/other.png", compress_level=1)
  shutil.copy(_label(root), root / "labels/val/other.png")
  _image(root).unlink()
  pixels.save(root / "images/train/train3.png", compress_level=9)


def _with_orientation(root, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.open(_image(root)).save(_image(root), exif=exif)


# The fault, and the start of its line. Faults of single files that no reader
# takes are in `test_malformed`.
NOTES = {
    "missing_class": (_map_labels(lambda raw: np.where(raw == 1, 0, raw)),
        r"custom: 1 of 3 classes are not in any label: street lamp;"),
    "class_of_val_alone": (
        _map_labels(lambda raw: np.where(raw == 1, 0, raw), "train"),
        r"custom: 1 of 3 classes are not in any label of train: street lamp;"),
    "shifted_down": (
        _map_labels(lambda raw: np.where(raw == 255, 255, raw - 1)),
        r"custom: id 2 \(car\) is in no label and 255 is in some, so all ids "
        r"look shifted down by one; expected 0-2"),
}  # fmt: skip
FAULTS = {
    "size": (lambda r: _save(np.zeros((50, 61), np.uint8), _label(r)),
        r"labels/train/train3.png: label of 50x61 for .*3.jpg of 50x60 "),
    "value": (lambda r: _set(r, 7),
        r"train3.png: label value 7 \(6 pixels\); expected 0-2 for the classes "
        r"and 255 for pixels without one. Say in classes.txt what the value"),
    "folder_for_an_image": (lambda r: (_image(r).unlink(), _image(r).mkdir()),
        r"labels/train/train3.png: image is missing"),
    "jpeg_label": (
        lambda r: (
            Image.open(_label(r)).save(_label(r).with_suffix(".jpg")),
            _label(r).unlink(),
        ),
        r"train3.jpg: label as JPEG, whose losses change values; expected PNG"),
    "missing_label": (lambda r: _label(r).unlink(),
        r"images/train/train3.jpg: label is missing; .*train/train3.png"),
    "missing_image": (lambda r: _image(r).unlink(),
        r"labels/train/train3.png: image is missing; .*train3.png or"),
    "two_files_of_one_id": (
        lambda r: Image.open(_image(r)).save(_image(r).with_suffix(".png")),
        r"train3.png: id train3 occurs twice, also as train3.jpg"),
    "other_format": (
        lambda r: Image.open(_image(r)).save(r / "images/train/new.gif"),
        r"train/new.gif: found a file of type .gif; expected PNG, JPEG, TIFF"),
    "file_in_no_split": (lambda r: _image(r).rename(r / "images/train3.jpg"),
        r"images/train3.jpg: in no split; expected only train, val here"),
    "misnamed_split": (
        lambda r: (r / "images/val").rename(r / "images/validation"),
        r"images/validation: in no split; expected only train here"),
    "missing_split_of_labels": (lambda r: shutil.rmtree(r / "labels/val"),
        r"labels/val: no such folder; expected a folder of images or labels"),
    "no_labels_at_all": (
        lambda r: (
            shutil.rmtree(r / "labels/val"),
            shutil.rmtree(r / "labels/train"),
        ),
        r"labels/train: no such folder; expected a folder of"),
    "no_files_at_all": (lambda r: [p.unlink() for p in r.glob("*/*/*")],
        r"images/train: no images; expected PNG, JPEG, TIFF"),
    "every_image_damaged": (
        lambda r: [p.write_bytes(b"") for p in r.glob("images/*/*")],
        r"images/train/train3.jpg: cannot be decoded"),
    "same_image_in_two_splits": (
        lambda r: _copy(r, 3, "val", 7),
        r"images/val/val7.jpg: in val, the same image as .*train3.jpg in train",
    ),
    "same_pixels_in_two_splits": (
        _reencode,
        r"images/val/other.png: in val, the same image as .*train3.png in trai",
    ),
    "shifted_up": (_map_labels(lambda raw: np.where(raw == 255, 255, raw + 1)),
        r"custom: id 0 \(sky\) is in no label and 3 is in some, so all ids "
        r"look shifted up by one; expected 0-2"),
    "shifted_down_with_255": (_map_labels(lambda raw: raw - 1),
        r"custom: ids up to 1 and 254, as if one had been subtracted from"),
    "255_as_a_class": (_map_labels(lambda raw: np.where(raw == 0, 0, 255)),
        r"custom: all labels hold sky and 255 only, so 255 looks used as a cl"),
    "masks_of_0_and_255": (
        lambda r: (
            _map_labels(lambda raw: np.where(raw == 0, 0, 255))(r),
            (r / "classes.txt").write_text("sky\ncar\n"),
        ),
        r"custom: all labels hold sky and 255 only, so 255 looks used as a cl"),
    "nothing_but_255": (_map_labels(lambda raw: np.full_like(raw, 255)),
        r"custom: all labels hold 255 only, so 255 looks used as a class"),
    "twelve_bits": (
        lambda r: (
            _image(r).unlink(),
            _save(
                np.linspace(0, 4095, 3000).reshape(50, 60).astype(np.uint16),
                _image(r).with_suffix(".png"),
            ),
        ),
        r"images/train/train3.png: 16-bit image of values below 4096; expected",
    ),
    "label_of_the_unturned_image": (lambda r: _with_orientation(r, 6),
        r"labels/train/train3.png: label of 50x60 for .*3.jpg of 50x60, which "
        r"its EXIF orientation turns to 60x50 .*Turn the label"),
    "pipe": (lambda r: (_image(r).unlink(), os.mkfifo(_image(r))),
        r"images/train/train3.jpg: a pipe or device; expected an image file"),
    "dangling_link": (
        lambda r: (_image(r).unlink(), _image(r).symlink_to("nowhere")),
        r"images/train/train3.jpg: a link to a file that is missing; expected"),
    "link_to_itself": (
        lambda r: (_label(r).unlink(), _label(r).symlink_to("train3.png")),
        r"labels/train/train3.png: Too many levels of symbolic links; expected",
    ),
    "endless_device": (
        lambda r: (_image(r).unlink(), _image(r).symlink_to("/dev/zero")),
        r"images/train/train3.jpg: a pipe or device; expected an image file"),
    "name_of_other_bytes": (
        lambda r: os.rename(_image(r), os.fsencode(_image(r)) + b"\xff.jpg"),
        r"images/train/train3.jpg\\udcff.jpg: a name that is not printable UT"),
    "name_of_two_lines": (
        lambda r: _image(r).rename(_image(r).with_name("a\nb.jpg")),
        r"images/train/a\\nb.jpg: a name that is not printable UTF-8"),
    "gray_tones": (_colors_to_gray,
        r"custom: label values 9, 42, 118 are the brightness of the classes' "
        r"colours; .*: '__ignore__ = 0', 'sky 70 130 180 = 118', 'street lamp "
        r"9 9 9 = 9', 'car 142 0 0 = 42'"),
    "interpolated": (_map_labels(_blur),
        r"custom: \d+ label values between and beyond the classes, as after"),
}  # fmt: skip


def _faults(out):
  return [line for line in out if line.startswith("fault: ")]


class CheckTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder, "own data")

  def run_check(self, **flags):
    """Returns exit code, lines of standard output, and the error if any."""
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    code, out, err = running.run(check, "--num_workers=0", *arguments)
    self.assertEqual(err.count("\n"), code // 2)
    return code, out.splitlines(), err.removeprefix("error: ").rstrip()

  def check_folders(self, **flags):
    folders = {k: f"{self.root}/{k}" for k in ("images", "labels")}
    return self.run_check(**folders, **flags)

  @parameterized.parameters(False, True)
  def test_sound_data_has_no_fault(self, colors):
    miniatures.write_custom(self.root, colors=colors)
    for code, out, err in (
        self.check_folders(),
        self.run_check(dataset="custom", source=self.root),
    ):
      self.assertEqual((code, err), (0, ""))
      self.assertEqual(out[-1], "no fault in 11 pairs of custom")
      self.assertNotIn("fault:", "".join(out))
      self.assertNotIn("note:", "".join(out))

  @parameterized.named_parameters((k, *v) for k, v in FAULTS.items())
  def test_finds_it_and_training_tells_it_in_the_same_words(self, fault, words):
    miniatures.write_custom(self.root)
    fault(self.root)
    code, out, err = self.check_folders()
    self.assertEqual(code, 2)
    faults = _faults(out)
    self.assertRegex("\n".join(faults), rf"(?m)^fault: (/.*)?{words}")
    self.assertRegex(err, rf"^{len(faults)} faults? in \d+ pairs of")
    _, as_source, _ = self.run_check(dataset="custom", source=self.root)
    self.assertEqual(as_source, out)

    with self.assertRaises(errors.UserError) as raised:
      self.prepare()
    line = re.sub(r" \(and \d+ more faults?\)$", "", str(raised.exception))
    line = re.sub(r"^own_data_\w{10}:", "custom:", line)
    self.assertIn(f"fault: {line}", out)

  def prepare(self, **kwargs):
    """Returns what preparing the folder prints on standard error."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
      spec = custom.from_folder(self.root, **kwargs)
      packing.ensure_prepared(spec, self.root.parent / "data")
    return re.sub(r"own_data_\w{10}:", "custom:", err.getvalue())

  @parameterized.named_parameters((k, *v) for k, v in NOTES.items())
  def test_a_small_set_may_lack_a_class(self, change, words):
    miniatures.write_custom(self.root)
    change(self.root)
    code, out, _ = self.check_folders()
    self.assertEqual(code, 0)
    self.assertRegex(out[0], rf"^note: {words}")
    self.assertIn(out[0], self.prepare())

  @parameterized.parameters(False, True)
  def test_splits_overlap_only_if_asked(self, listed):
    miniatures.write_custom(self.root)
    _copy(self.root, 3, "val", 7)
    if listed:
      names = "train/train3\ntrain/train4\n"
      (self.root / "train.txt").write_text(names)
      (self.root / "val.txt").write_text(names)
    flags = {"dataset": "custom", "source": self.root}
    code, out, _ = self.run_check(**flags)
    self.assertEqual(code, 2)
    self.assertIn("allow it by --overlapping_splits", _faults(out)[0])
    with self.assertRaisesRegex(errors.UserError, "overlapping_splits=True"):
      self.prepare()
    code, out, _ = self.run_check(**flags, overlapping_splits=True)
    self.assertEqual(code, 0)
    note = f"custom: {2 if listed else 1} images are in several splits; results"
    self.assertStartsWith(out[0], f"note: {note}")
    self.assertIn(f"note: {note}", self.prepare(overlapping_splits=True))

  def test_overlap_is_of_own_data_alone(self):
    flags = {"dataset": "camvid", "source": "/no", "overlapping_splits": True}
    code, _, err = self.run_check(**flags)
    self.assertEqual(code, 2)
    self.assertStartsWith(err, "--overlapping_splits: goes with your own data")

  @parameterized.parameters(3, 6)
  def test_turned_images_are_counted(self, orientation):
    miniatures.write_custom(self.root)
    _with_orientation(self.root, orientation)
    if orientation == 6:
      _save(np.array(Image.open(_label(self.root))).T, _label(self.root))
    code, out, _ = self.check_folders()
    self.assertEqual(code, 0)
    self.assertStartsWith(out[0], "note: custom: 1 of 11 images are turned or")

  def test_each_fault_of_a_file_is_told_once_and_no_other_is_blamed(self):
    miniatures.write_custom(self.root)
    _set(self.root, 7)
    _image(self.root, i=5).write_bytes(b"")
    _save(np.zeros((50, 61), np.uint8), _label(self.root, "val", 0))
    _image(self.root, "val", 1).unlink()
    # And each duplicate, and a file of another format.
    _copy(self.root, 6, "val", 6)
    _image(self.root, i=7).rename(_image(self.root, i=7).with_suffix(".gif"))
    self.assertLen(_faults(self.check_folders()[1]), 6)

  def test_the_table_counts_pixels(self):
    miniatures.write_custom(self.root)
    _save(np.zeros((50, 60), np.uint8), _label(self.root, "val", 0))
    _save(np.full((50, 60), 255, np.uint8), _label(self.root, "val", 1))
    _, out, _ = self.check_folders()
    rows = {line.split("  ")[0]: line.split() for line in out}
    self.assertEqual(rows["sky"][1:], ["25.00%", "50.00%", "10"])
    self.assertEqual(rows["street lamp"][2:], ["25.00%", "0.00%", "9"])
    self.assertEqual(rows["(ignored)"][1:], ["25.00%", "50.00%", "10"])
    self.assertEqual(rows["pairs"][1:], ["9", "2", "11"])
    self.assertRegex(out[0], r"^note: .*val1.png: every .*|val1.jpg: every ")

  def test_odd_files_are_noted_but_no_faults(self):
    miniatures.write_custom(self.root)
    _as_png(self.root, -12)
    _copy(self.root, 0, "train", 9)
    code, out, _ = self.check_folders()
    self.assertEqual(code, 0)
    notes = "\n".join(line for line in out if line.startswith("note: "))
    self.assertRegex(notes, r"train3.png: PNG without its end; all rows are")
    self.assertRegex(notes, r"train9.jpg: the same image as .*train0.jpg, both")

  def test_a_manifest_tells_what_decoding_does_not(self):
    miniatures.write_custom(self.root)
    manifest = self.root / "sums.txt"
    code, out, _ = self.check_folders(manifest=manifest)
    self.assertEqual(code, 0)
    self.assertIn(f"note: {manifest}: written, 22 files.", out)
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", manifest], cwd=self.root
    )
    self.assertEqual(done.returncode, 0)
    self.assertEqual(self.check_folders(manifest=manifest)[0], 0)

    data = bytearray(_image(self.root).read_bytes())
    data[len(data) // 2] ^= 1  # A pixel or two, and no error.
    _image(self.root).write_bytes(data)
    self.assertEqual(self.check_folders()[0], 0)
    for path in (_image(self.root, i=5), _label(self.root, i=5)):
      path.rename(path.with_stem("new"))
    code, out, _ = self.check_folders(manifest=manifest)
    self.assertEqual(code, 2)
    self.assertRegex(
        "".join(sorted(_faults(out))),
        r"train/train3.jpg: other content; expected that of .*sums.txt.*"
        r"images/train/train5.jpg: no such file; expected that of .*"
        r"labels/train/train5.png: no such file; expected that of ",
    )
    self.assertLen(_faults(out), 3)
    new = _image(self.root, i=5).with_stem("new")
    self.assertIn(f"note: {new}: not in {manifest}.", out)

    manifest.write_text("abc  x\n")
    _, _, err = self.check_folders(manifest=manifest)
    self.assertRegex(err, "sums.txt:1: found 'abc x'; expected a SHA-256")

  def test_lines_are_limited(self):
    miniatures.write_custom(self.root)
    for path in (self.root / "images/train").iterdir():
      path.write_bytes(b"")
    _, out, err = self.check_folders(max_lines=2)
    self.assertLen(_faults(out), 3)
    self.assertEqual(_faults(out)[2], "fault: 7 more; --max_lines=0 shows all")
    self.assertIn("9 faults", err)

  def test_classes_may_be_elsewhere(self):
    miniatures.write_custom(self.root)
    (self.root / "classes.txt").rename(self.root / "names.txt")
    _, _, err = self.check_folders()
    self.assertRegex(err, r"own data/classes.txt: no such file; ex")
    code, _, _ = self.check_folders(classes=self.root / "names.txt")
    self.assertEqual(code, 0)

  @parameterized.parameters(
      ({},),
      ({"images": "a"},),
      ({"labels": "a"},),
      ({"images": "a", "labels": "b", "dataset": "camvid"},),
      ({"dataset": "camvid"},),
      ({"dataset": "camvid", "source": "a", "data_dir": "b"},),
      ({"dataset": "camvid", "classes": "a", "source": "b"},),
      ({"dataset": "custom", "data_dir": "a"},),
      ({"dataset": "camvid", "data_dir": "a", "manifest": "b"},),
  )
  def test_flags_that_make_no_sense_are_refused(self, flags):
    code, out, err = self.run_check(**flags)
    self.assertEqual((code, out), (2, []))
    found = " ".join(f"--{name}" for name in sorted(flags)) or "no flags"
    self.assertStartsWith(err, f"found {found}; expected --images and --labels")

  @parameterized.parameters(
      ({"images": "/no", "labels": "/no"}, "/no: no such folder"),
      ({"dataset": "camvid", "source": "/no"}, "/no: cannot be read (No such"),
      ({"dataset": "custom", "source": "/no"}, "/no: no such folder"),
      ({"dataset": "camvid", "data_dir": "/no"}, "is not prepared; run: "),
      ({"dataset": "camvdi", "data_dir": "/no"}, "did you mean 'camvid'"),
      ({"dataset": "context_scenes", "source": "/"}, "is generated and takes"),
  )
  def test_nothing_to_check(self, flags, words):
    code, out, err = self.run_check(**flags)
    self.assertEqual((code, out), (2, []))
    self.assertIn(words, err)

  @parameterized.parameters(*sorted(miniatures.WRITERS))
  def test_published_layouts_as_source_and_prepared(self, name):
    miniatures.WRITERS[name](self.root)
    source = {"dataset": name, "source": self.root}
    code, out, _ = self.run_check(**source)
    self.assertEqual(code, 2)  # Miniatures have not the published size.
    self.assertLen(_faults(out), 1)
    code, out, _ = self.run_check(**source, any_size=True)
    self.assertEqual(code, 0)
    self.assertNotIn("note", "".join(out))
    data_dir = self.root.parent / "data"
    packing.prepare(DATASETS[name], data_dir, source=self.root, any_size=True)
    code, prepared, _ = self.run_check(dataset=name, data_dir=data_dir)
    self.assertEqual(code, 0)
    if name != "cityscapes":  # Its test split is stored, all ignored.
      self.assertEqual(prepared, out)

  def test_a_damaged_record_of_a_prepared_dataset(self):
    miniatures.write_camvid(self.root)
    data_dir = self.root.parent / "data"
    spec = DATASETS["camvid"]
    packing.prepare(spec, data_dir, source=self.root, any_size=True)
    (path,) = packing.dataset_dir(spec, data_dir).glob("*-val.array_record*")
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 64] = bytes(64)
    path.write_bytes(data)
    code, _, err = self.run_check(dataset="camvid", data_dir=data_dir)
    self.assertEqual(code, 2)
    self.assertStartsWith(err, f"{path}: damaged")

  def test_a_fault_of_a_published_dataset(self):
    miniatures.write_ade20k(self.root)
    for path in (self.root / "ADEChallengeData2016/annotations").rglob("*.png"):
      raw = np.array(Image.open(path))
      _save(np.where(raw == 0, 255, raw - 1).astype(np.uint8), path)
    code, out, _ = self.run_check(
        dataset="ade20k", source=self.root, any_size=True
    )
    self.assertEqual(code, 2)
    text = "\n".join(out)
    self.assertRegex(text, r"training/ADE_train_00000001.png: label value 255 ")
    self.assertRegex(text, r"ade20k: id 150 \(flag\) is in no label and 255 is")

  def test_processes_find_the_same(self):
    miniatures.write_custom(self.root)
    _set(self.root, 7)
    expected = self.check_folders()
    self.assertEqual(self.check_folders(num_workers=2), expected)

  def test_runs_as_a_module_without_jax(self):
    miniatures.write_custom(self.root)
    _set(self.root, 7)
    source = f"--source={self.root}"
    flags = ["--dataset=custom", "--num_workers=1", source]
    done = running.run_alone(check, *flags)
    self.assertEqual(done.returncode, 2, done.stderr)
    self.assertEqual(done.stderr.count("\n"), 1)
    self.assertIn("label value 7", done.stdout)

  @absltest.skipUnless(
      test_camvid.REAL.is_dir(),
      "no CamVid; set CTXSEG_CAMVID to a folder of it",
  )
  def test_blames_none_on_camvid(self):
    code, out, _ = self.run_check(
        dataset="camvid", source=test_camvid.REAL, num_workers=2
    )
    self.assertEqual(code, 0)
    self.assertEqual(out[-1], "no fault in 701 pairs of camvid")
    self.assertFalse([x for x in out if x.startswith(("fault", "note"))])
    self.assertRegex("\n".join(out), r"\nroad +31.66% +28.95% +25.81% +701\n")


if __name__ == "__main__":
  absltest.main()
