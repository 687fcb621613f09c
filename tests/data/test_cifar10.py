"""Tests for CIFAR-10, its stand-in, and what they have in place of maps."""

import os
import pathlib
import pickle
import shutil
import tarfile
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import running

from ctxseg_jax import errors
from ctxseg_jax.data import packing
from ctxseg_jax.data import prepare
from ctxseg_jax.data import records
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data import transforms
from ctxseg_jax.data.datasets import cifar10
from ctxseg_jax.data.datasets import cifar10_stand_in
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.evaluation.tasks import TASKS

SPEC = cifar10_stand_in.SPEC

# Miniatures of both editions: 20 images a file, two of each class.


def make_arrays(seed, count=20):
  rng = np.random.default_rng(seed)
  labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
  return rng.integers(0, 256, (count, 3072)).astype(np.uint8), labels


FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def make_binary(folder):
  folder.mkdir(parents=True)
  for seed, name in enumerate(FILES):
    planes, labels = make_arrays(seed)
    data = np.concatenate([labels[:, None], planes], axis=1).tobytes()
    (folder / f"{name}.bin").write_bytes(data)
  return folder


def python2_pickle(planes, labels):
  """Returns the pickle of a batch as Python 2 wrote those published."""

  def string(text):
    return b"T" + len(text).to_bytes(4, "little") + text

  def number(value):
    return b"J" + int(value).to_bytes(4, "little", signed=True)

  dtype = (
      b"cnumpy\ndtype\n("
      + string(b"u1")
      + number(0)
      + number(1)
      + b"tR("
      # Its state: version, byte order, and what only records have.
      + number(3)
      + string(b"|")
      + b"NNN"
      + number(-1) * 2
      + number(0)
      + b"tb"
  )
  array = (
      b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n("
      + number(0)
      + b"t"
      + string(b"b")
      + b"tR("
      + number(1)
      + b"("
      + b"".join(map(number, planes.shape))
      + b"t"
      + dtype
      + b"I00\n"
      + string(planes.tobytes())
      + b"tb"
  )
  items = (
      string(b"batch_label")
      + string(b"a batch")
      + string(b"labels")
      + b"("
      + b"".join(map(number, labels))
      + b"l"
      + string(b"data")
      + array
  )
  return b"\x80\x02}(" + items + b"u."


def make_python(folder):
  folder.mkdir(parents=True)
  for seed, name in enumerate(FILES):
    (folder / name).write_bytes(python2_pickle(*make_arrays(seed)))
  return folder


def pack(folder, path):
  with tarfile.open(path, "w:gz") as archive:
    archive.add(folder, folder.name)
  shutil.rmtree(folder)


class Cifar10Test(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    directory = tempfile.TemporaryDirectory()
    self.addCleanup(directory.cleanup)
    self.root = pathlib.Path(directory.name) / "source"

  def make(self, layout):
    if "binary" in layout or "bin" in layout:
      folder = make_binary(self.root / "cifar-10-batches-bin")
    else:
      folder = make_python(self.root / "cifar-10-batches-py")
    if layout.endswith(".tar.gz"):
      pack(folder, self.root / layout)
    return folder

  @parameterized.parameters(
      "cifar-10-batches-bin",
      "cifar-10-binary.tar.gz",
      "cifar-10-batches-py",
      "cifar-10-python.tar.gz",
  )
  def test_all_layouts_hold_the_same(self, layout):
    folder = self.make(layout)
    splits = cifar10.load(self.root, any_size=True)
    for split, seeds in (("train", range(5)), ("test", [5])):
      pictures, labels = splits[split]
      found = [make_arrays(seed) for seed in seeds]
      planes = np.concatenate([x for x, _ in found])
      np.testing.assert_array_equal(
          labels, np.concatenate([y for _, y in found])
      )
      self.assertEqual(pictures.shape, (len(planes), 32, 32, 3))
      for y, x, c in ((0, 0, 0), (3, 7, 1), (31, 30, 2)):
        np.testing.assert_array_equal(
            pictures[:, y, x, c], planes[:, 1024 * c + 32 * y + x]
        )
    if folder.exists():
      # The folder itself is a source as well.
      again = cifar10.load(folder, any_size=True)
      np.testing.assert_array_equal(again["test"][0], splits["test"][0])

  def test_the_command_prepares_what_training_reads(self):
    self.make("cifar-10-batches-bin")
    data_dir = self.root.parent / "data"
    flags = ["--dataset=cifar10", f"--source={self.root}"]
    code, out, _ = running.run(
        prepare, *flags, f"--data_dir={data_dir}", "--any_size"
    )
    self.assertEqual(code, 0)
    self.assertRegex(out, r"train +100 +10/10 +0\.00%")
    source = records.open_source(cifar10.SPEC, "train", data_dir)
    self.assertLen(source, 100)
    planes, labels = make_arrays(2)
    example = source[47]  # Image 7 of the third file.
    np.testing.assert_array_equal(
        example["image"], planes[7].reshape(3, 32, 32).transpose(1, 2, 0)
    )
    self.assertEqual(example["label"], labels[7])
    self.assertEqual(example["label"].shape, ())

  def test_other_sizes_are_refused_unless_asked_for(self):
    self.make("cifar-10-batches-bin")
    with self.assertRaisesRegex(
        errors.UserError, "data_batch_1: 20 images; expected 10000.*any_size"
    ):
      cifar10.load(self.root)

  @parameterized.parameters(
      ("truncated", "data_batch_3.bin has 61459 bytes.*3073"),
      ("empty", "data_batch_3.bin has 0 bytes"),
      ("label", "data_batch_3: label 10 of image 4; expected 0 to 9"),
      ("missing", "data_batch_3.bin: no such file"),
  )
  def test_faults_of_binary_files_are_named(self, fault, message):
    folder = self.make("cifar-10-batches-bin")
    path = folder / "data_batch_3.bin"
    data = path.read_bytes()
    if fault == "truncated":
      path.write_bytes(data[:-1])
    elif fault == "empty":
      path.write_bytes(b"")
    elif fault == "label":
      path.write_bytes(data[: 4 * 3073] + b"\x0a" + data[4 * 3073 + 1 :])
    else:
      path.unlink()
    with self.assertRaisesRegex(errors.UserError, message):
      cifar10.load(self.root, any_size=True)

  def test_classes_of_unequal_size_are_refused(self):
    self.make("cifar-10-batches-bin")
    path = self.root / "cifar-10-batches-bin" / "data_batch_2.bin"
    data = bytearray(path.read_bytes())
    data[0] = (data[0] + 1) % 10
    path.write_bytes(data)
    cifar10.load(self.root, any_size=True)
    with absltest.mock.patch.object(cifar10, "PER_FILE", 20):
      with self.assertRaisesRegex(errors.UserError, "9 to 11.*expected 10 of"):
        cifar10.load(self.root)

  def test_damaged_archives_are_named(self):
    self.make("cifar-10-binary.tar.gz")
    path = self.root / "cifar-10-binary.tar.gz"
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"no archive", b""):
      path.write_bytes(damaged)
      with self.assertRaisesRegex(errors.UserError, "binary.tar.gz"):
        cifar10.load(self.root, any_size=True)

  def test_an_archive_without_a_file_is_named(self):
    folder = self.make("cifar-10-batches-bin")
    (folder / "data_batch_4.bin").unlink()
    pack(folder, self.root / "cifar-10-binary.tar.gz")
    with self.assertRaisesRegex(errors.UserError, "holds no data_batch_4.bin"):
      cifar10.load(self.root, any_size=True)

  def test_a_pickle_that_would_run_something_is_refused(self):
    folder = self.make("cifar-10-batches-py")
    planted = self.root / "planted"

    class Planted:

      def __reduce__(self):
        return os.mkdir, (str(planted),)

    (folder / "data_batch_2").write_bytes(pickle.dumps(Planted(), 2))
    with self.assertRaisesRegex(errors.UserError, "data_batch_2.*mkdir"):
      cifar10.load(self.root, any_size=True)
    self.assertFalse(planted.exists())

  @parameterized.parameters(
      (dict(),),
      ({b"data": 1, b"labels": [1]},),
      ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},),
      ({b"data": np.zeros((1, 3072), np.uint16), b"labels": [1]},),
      ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [300]},),
      ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"1"]},),
      ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []},),
  )
  def test_pickles_of_something_else_are_named(self, batch):
    folder = self.make("cifar-10-batches-py")
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch, 3))
    with self.assertRaisesRegex(errors.UserError, "data_batch_2 is not a"):
      cifar10.load(self.root, any_size=True)

  def test_a_truncated_pickle_is_named(self):
    folder = self.make("cifar-10-batches-py")
    path = folder / "test_batch"
    data = path.read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
      path.write_bytes(data[:length])
      with self.assertRaisesRegex(errors.UserError, "test_batch is not a"):
        cifar10.load(self.root, any_size=True)

  def test_arrays_pickled_by_python_3_are_read_too(self):
    folder = self.make("cifar-10-batches-py")
    before = cifar10.load(self.root, any_size=True)
    planes, labels = make_arrays(5)
    for array in (planes, np.asfortranarray(planes)):
      batch = {b"data": array, b"labels": labels.tolist()}
      (folder / "test_batch").write_bytes(pickle.dumps(batch, 4))
      after = cifar10.load(self.root, any_size=True)
      np.testing.assert_array_equal(after["test"][0], before["test"][0])

  def test_no_known_layout(self):
    self.root.mkdir()
    (self.root / "train.bin").write_bytes(b"")  # CIFAR-100.
    with self.assertRaisesRegex(errors.UserError, "no known layout.*bin"):
      cifar10.load(self.root)
    with self.assertRaisesRegex(errors.UserError, "Not a directory"):
      packing.prepare(cifar10.SPEC, self.root, source=self.root / "train.bin")


class SpecTest(parameterized.TestCase):

  def test_every_task_of_a_data_set_is_there(self):
    self.assertSameElements(TASKS, spec_lib.TASKS)
    for spec in DATASETS.values():
      self.assertIn(spec.task, TASKS)

  @parameterized.parameters(
      (dict(task="detection"), "detection"),
      (dict(palette=((0, 0, 0),)), "for maps"),
      (dict(label_map=np.zeros(256, np.uint8)), "for maps"),
      (dict(task="segmentation"), "0 colours for 2"),
      (
          dict(task="segmentation", palette=((0, 0, 0), (1, 1, 1))),
          "label_map must be",
      ),
  )
  def test_what_a_task_has_no_use_for_is_refused(self, fields, message):
    fields = (
        dict(
            name="x",
            class_names=("a", "b"),
            mean=(0.0, 0.0, 0.0),
            split_sizes={},
            find=None,
            read=None,
            needs_source=False,
            task="classification",
        )
        | fields
    )
    with self.assertRaisesRegex(ValueError, message):
      spec_lib.DatasetSpec(**fields)

  def test_a_label_that_is_no_class_is_named(self):
    SPEC.check_label(np.uint8(9), "a")
    with self.assertRaisesRegex(errors.UserError, "a: label 10, expected 0 to"):
      SPEC.check_label(np.uint8(10), "a")


class StandInTest(absltest.TestCase):

  def test_images_follow_split_and_index_and_classes_take_turns(self):
    image, label = cifar10_stand_in.draw("train", 23)
    again, _ = cifar10_stand_in.draw("train", 23)
    other, same = cifar10_stand_in.draw("test", 23)
    np.testing.assert_array_equal(image, again)
    self.assertFalse(np.array_equal(image, other))
    self.assertEqual((label, same), (3, 3))
    self.assertEqual((image.shape, image.dtype), ((32, 32, 3), np.uint8))


class PaddedCropTest(parameterized.TestCase):

  def _example(self):
    image = np.random.default_rng(0).integers(1, 256, (32, 32, 3))
    return {"image": image.astype(np.uint8), "label": np.uint8(7)}

  def test_all_81_positions_and_both_sides_occur_alike(self):
    augmentation = transforms.PaddedCrop((32, 32), padding=4, flip=True)
    example = self._example()
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
    example = self._example()
    out = transforms.PaddedCrop((32, 32))(example, np.random.default_rng(0))
    np.testing.assert_array_equal(out["image"], example["image"])

  def test_positions_do_not_depend_on_the_flip(self):
    example = self._example()
    plain = transforms.PaddedCrop((32, 32), padding=4)
    flipped = transforms.PaddedCrop((32, 32), padding=4, flip=True)
    for seed in range(8):
      a = plain(example, np.random.default_rng(seed))["image"]
      b = flipped(example, np.random.default_rng(seed))["image"]
      self.assertTrue(np.array_equal(a, b) or np.array_equal(a, b[:, ::-1]))


if __name__ == "__main__":
  absltest.main()
