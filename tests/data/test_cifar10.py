"""Tests for CIFAR-10 and its stand-in."""

import os
import pathlib
import pickle
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
from ctxseg_jax.data.datasets import cifar10
from ctxseg_jax.data.datasets import cifar10_stand_in

FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def make_arrays(seed):
  """Returns planes and labels of a miniature: two images of each class."""
  rng = np.random.default_rng(seed)
  labels = rng.permutation(np.arange(20) % 10).astype(np.uint8)
  return rng.integers(0, 256, (20, 3072)).astype(np.uint8), labels


def python2_pickle(planes, labels):
  """Returns the pickle of a batch as Python 2 wrote those published."""

  def string(text):
    return b"T" + len(text).to_bytes(4, "little") + text

  def numbers(*values):
    return b"".join(
        b"J" + int(v).to_bytes(4, "little", signed=True) for v in values
    )

  dtype = b"cnumpy\ndtype\n(" + string(b"u1") + numbers(0, 1) + b"tR("
  # Its state: version, byte order, and what only records have.
  dtype += numbers(3) + string(b"|") + b"NNN" + numbers(-1, -1, 0) + b"tb"
  array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n("
  array += numbers(0) + b"t" + string(b"b") + b"tR(" + numbers(1) + b"("
  array += numbers(*planes.shape) + b"t" + dtype + b"I00\n"
  array += string(planes.tobytes()) + b"tb"
  items = string(b"batch_label") + string(b"a batch") + string(b"labels")
  items += b"(" + numbers(*labels) + b"l" + string(b"data") + array
  return b"\x80\x02}(" + items + b"u."


class Cifar10Test(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    directory = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(directory) / "source"
    self.folder = self.root / "cifar-10-batches-py"
    self.folder.mkdir(parents=True)
    for seed, name in enumerate(FILES):
      self.write(name, *make_arrays(seed))

  def write(self, name, planes, labels):
    (self.folder / name).write_bytes(python2_pickle(planes, labels))

  def pack(self):
    """Replaces the folder by its archive."""
    path = self.root / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
      archive.add(self.folder, self.folder.name)
    self.folder.rename(self.root.parent / "unpacked")
    return path

  def assert_refused(self, words, any_size=True):
    with self.assertRaisesRegex(errors.UserError, words):
      cifar10.load(self.root, any_size=any_size)

  def test_folder_and_archive_hold_the_same(self):
    splits = cifar10.load(self.root, any_size=True)
    for split, seeds in (("train", range(5)), ("test", [5])):
      pictures, labels = splits[split]
      planes, expected = map(
          np.concatenate, zip(*map(make_arrays, seeds), strict=True)
      )
      np.testing.assert_array_equal(labels, expected)
      self.assertEqual(pictures.shape, (len(planes), 32, 32, 3))
      for y, x, c in ((0, 0, 0), (3, 7, 1), (31, 30, 2)):
        np.testing.assert_array_equal(
            pictures[:, y, x, c], planes[:, 1024 * c + 32 * y + x]
        )
    # The folder itself is a source as well.
    others = [cifar10.load(self.folder, any_size=True)]
    self.pack()
    others.append(cifar10.load(self.root, any_size=True))
    for other in others:
      np.testing.assert_array_equal(other["test"][0], splits["test"][0])
      np.testing.assert_array_equal(other["train"][1], splits["train"][1])

  def test_the_command_prepares_what_training_reads(self):
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

  def test_a_label_that_is_no_class_is_named(self):
    planes, labels = make_arrays(2)
    labels[4] = 10
    self.write("data_batch_3", planes, labels)
    self.assert_refused(
        "data_batch_3 is not a.*label 10 of image 4; expected 0 to 9"
    )

  def test_other_numbers_of_images_are_refused(self):
    self.assert_refused(
        "data_batch_1: 20 images; expected 10000.*any_size", any_size=False
    )
    planes, labels = make_arrays(1)
    labels[0] = (labels[0] + 1) % 10
    self.write("data_batch_2", planes, labels)
    cifar10.load(self.root, any_size=True)
    with absltest.mock.patch.object(cifar10, "PER_FILE", 20):
      self.assert_refused("9 to 11.*expected 10 of", any_size=False)

  def test_damaged_archives_are_named(self):
    path = self.pack()
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"no archive", b""):
      path.write_bytes(damaged)
      self.assert_refused("python.tar.gz")

  def test_a_missing_file_is_named(self):
    (self.folder / "data_batch_4").unlink()
    self.assert_refused("data_batch_4: no such file")
    self.pack()
    self.assert_refused("holds no data_batch_4")

  def test_a_pickle_that_would_run_something_is_refused(self):
    planted = self.root / "planted"

    class Planted:

      def __reduce__(self):
        return os.mkdir, (str(planted),)

    (self.folder / "data_batch_2").write_bytes(pickle.dumps(Planted(), 2))
    self.assert_refused("data_batch_2.*mkdir")
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
    (self.folder / "data_batch_2").write_bytes(pickle.dumps(batch, 3))
    self.assert_refused("data_batch_2 is not a")

  def test_a_truncated_pickle_is_named(self):
    path = self.folder / "test_batch"
    data = path.read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
      path.write_bytes(data[:length])
      self.assert_refused("test_batch is not a")

  def test_arrays_pickled_by_python_3_are_read_too(self):
    before = cifar10.load(self.root, any_size=True)
    planes, labels = make_arrays(5)
    for array in (planes, np.asfortranarray(planes)):
      batch = {b"data": array, b"labels": labels.tolist()}
      (self.folder / "test_batch").write_bytes(pickle.dumps(batch, 4))
      after = cifar10.load(self.root, any_size=True)
      np.testing.assert_array_equal(after["test"][0], before["test"][0])

  def test_no_known_layout(self):
    (self.folder / "train").write_bytes(b"")  # CIFAR-100.
    for name in FILES:
      (self.folder / name).unlink()
    with self.assertRaisesRegex(errors.UserError, "no known layout.*train"):
      cifar10.load(self.folder)
    with self.assertRaisesRegex(errors.UserError, "Not a directory"):
      packing.prepare(cifar10.SPEC, self.root, source=self.folder / "train")


class StandInTest(absltest.TestCase):

  def test_images_follow_split_and_index_and_classes_take_turns(self):
    image, label = cifar10_stand_in.draw("train", 23)
    again, _ = cifar10_stand_in.draw("train", 23)
    other, same = cifar10_stand_in.draw("test", 23)
    np.testing.assert_array_equal(image, again)
    self.assertFalse(np.array_equal(image, other))
    self.assertEqual((label, same), (3, 3))
    self.assertEqual((image.shape, image.dtype), ((32, 32, 3), np.uint8))


if __name__ == "__main__":
  absltest.main()
