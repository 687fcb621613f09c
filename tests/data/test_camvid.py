"""Tests for ctxseg_jax.data.camvid and ctxseg_jax.data.prepare."""

import os
import pathlib
import pickle
import shutil
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
import running
import tensorflow_datasets as tfds
import test_datasets

from ctxseg_jax import errors
from ctxseg_jax.data import builder
from ctxseg_jax.data import packing
from ctxseg_jax.data import prepare
from ctxseg_jax.data import records
from ctxseg_jax.data.datasets import camvid

SIZES = {"train": 9, "val": 2, "test": 3}
REAL = pathlib.Path(
    os.environ.get("CTXSEG_CAMVID")
    or pathlib.Path(__file__).parents[3] / "shared" / "data" / "camvid"
)


def _label(name):
  raw = miniatures.raw_label(name, miniatures.CAMVID_IDS)
  return np.where(raw == 11, 255, raw)


class _CamVidCase(test_datasets.TreeCase):

  def prepare(self, any_size=True):
    return super().prepare("camvid", any_size)

  def open(self, split):
    return records.open_source(camvid.SPEC, split, self.data_dir)


class PrepareTest(_CamVidCase):

  @parameterized.product(
      repacked=(False, True), lists=(False, True), inside=("", "CamVid")
  )
  def test_layouts_hold_the_same_examples(self, repacked, lists, inside):
    miniatures.write_camvid(
        self.source / inside, repacked=repacked, lists=lists
    )
    self.assertTrue(self.prepare())
    for split, size in SIZES.items():
      source = pickle.loads(pickle.dumps(self.open(split)))  # As for a worker.
      self.assertLen(source, size)
      self.assertEqual(source.sizes().tolist(), [[*miniatures.SIZE]] * size)
      for i in range(size):
        example, name = source[i], f"{split}{i}"
        self.assertEqual(example["name"], name)
        np.testing.assert_array_equal(example["label"], _label(name))
        if not repacked:
          photo = np.array(miniatures.photo(name))
          np.testing.assert_array_equal(example["image"], photo)

  def test_image_bytes_are_kept(self):
    miniatures.write_camvid(self.source, repacked=True)
    self.prepare()
    stored = tfds.builder_from_directory(
        str(packing.dataset_dir(camvid.SPEC, self.data_dir))
    ).as_data_source("val", decoders={"image": tfds.decode.SkipDecoding()})
    file = self.source / "images" / "val" / "val0.jpg"
    self.assertEqual(stored[0]["image"], file.read_bytes())

  def test_list_decides_order_and_members(self):
    miniatures.write_camvid(self.source)
    (self.source / "train.txt").write_bytes(
        "\ufeff/SegNet/train/train3.png /SegNet/trainannot/train3.png\r\n"
        "\r\n   \r\n"
        "train/train1.png trainannot/train1.png\r\n".encode()
    )
    pairs = camvid.SPEC.find(self.source, any_size=True)
    self.assertEqual([p.name for p in pairs["train"]], ["train3", "train1"])

  def test_again_does_nothing(self):
    miniatures.write_camvid(self.source)
    self.assertTrue(self.prepare())
    shutil.rmtree(self.source)
    self.assertFalse(self.prepare())

  def test_killed_preparation_leaves_nothing_that_counts(self):
    miniatures.write_camvid(self.source)
    folder = packing.dataset_dir(camvid.SPEC, self.data_dir)
    left = folder.parent / f"incomplete.ABC123_{folder.name}"
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("{}")
    self.assertFalse(packing.is_prepared(camvid.SPEC, self.data_dir))
    with self.assertRaisesRegex(
        errors.UserError,
        "not prepared.* python -m ctxseg_jax.data.prepare --dataset camvid "
        f"--source DIR --data_dir {self.data_dir}$",
    ):
      self.open("val")
    self.prepare()
    self.assertFalse(left.exists())
    self.assertLen(self.open("val"), 2)

  def test_excerpt_may_lack_a_split(self):
    miniatures.write_camvid(self.source)
    shutil.rmtree(self.source / "test")
    shutil.rmtree(self.source / "testannot")
    self.prepare()
    with self.assertRaisesRegex(errors.UserError, "no split 'test'; .*train"):
      self.open("test")
    ignored = np.mean([_label(f"val{i}") == 255 for i in range(2)])
    text = records.summary(camvid.SPEC, self.data_dir)
    self.assertRegex(text, rf"val +2 +11/11 +{ignored:.2%}")

  def test_lost_record_file_is_named(self):
    miniatures.write_camvid(self.source)
    self.prepare()
    folder = packing.dataset_dir(camvid.SPEC, self.data_dir)
    (lost,) = folder.glob("*-val.array_record*")
    lost.unlink()
    with self.assertRaisesRegex(errors.UserError, f"{lost.name}: no such file"):
      self.open("val")


class FaultTest(_CamVidCase):

  def test_other_counts_need_the_flag(self):
    miniatures.write_camvid(self.source)
    with self.assertRaisesRegex(
        errors.UserError,
        "found 9 train, 2 val, 3 test pairs; expected 367 train, 101 val, 233 "
        "test.*--any_size",
    ):
      self.prepare(any_size=False)

  def test_missing_source(self):
    with self.assertRaisesRegex(errors.UserError, r"source: .*\(No such file"):
      self.prepare()
    self.source.mkdir()
    with self.assertRaisesRegex(errors.UserError, r"source: .*\(empty folder"):
      self.prepare()

  def test_full_disk(self):
    miniatures.write_camvid(self.source)
    # What the writer of array_record raised on a full disk.
    full = RuntimeError(
        "Failed to finalize writing of split\nwrite() failed: No space left on "
        "device; writing train.array_record"
    )
    with mock.patch.object(builder.Builder, "write", side_effect=full):
      with self.assertRaisesRegex(errors.UserError, "No space left on device"):
        self.prepare()

  def test_data_dir_that_is_a_file(self):
    miniatures.write_camvid(self.source)
    self.data_dir.write_text("")
    with self.assertRaisesRegex(errors.UserError, "cannot be written"):
      self.prepare()


class CommandTest(_CamVidCase):

  def test_prepares_then_says_it_is_there(self):
    miniatures.write_camvid(self.source)
    flags = ["--dataset=camvid", f"--source={self.source}", "--any_size"]
    for words in (r"train +9 +11/11", "^camvid is already prepared"):
      code, out, _ = running.run(prepare, *flags, f"--data_dir={self.data_dir}")
      self.assertEqual(code, 0)
      self.assertRegex(out, words)

  @parameterized.parameters(
      ((), "--dataset must have a value"),
      (("--dataset=cmavid", "--data_dir=x"), "'cmavid', did you mean 'camvid'"),
      (("--dataset=camvid", "--data_dir=x"), "--source: missing"),
      (("--dataset=camvid", "--data_dir=x", "--sorce=y"), "flag 'sorce'"),
      (
          ("--dataset=context_scenes", "--data_dir=x", "--source=y"),
          "takes neither",
      ),
  )
  def test_bad_flags_are_one_line_and_exit_2(self, argv, words):
    code, _, err = running.run(prepare, *argv)
    self.assertEqual(code, 2)
    self.assertStartsWith(err, "error: ")
    self.assertEqual(err.count("\n"), 1)
    self.assertIn(words, err)

  def test_runs_as_a_module_without_tensorflow_and_jax(self):
    miniatures.write_camvid(self.source)
    folders = [f"--source={self.source}", f"--data_dir={self.data_dir}"]
    done = running.run_alone(prepare, "--dataset=camvid", *folders)
    self.assertEqual(done.returncode, 2)
    self.assertStartsWith(done.stderr, "error: ")
    self.assertEqual(done.stderr.count("\n"), 1)


@absltest.skipUnless(
    REAL.is_dir(), "no CamVid; set CTXSEG_CAMVID to a folder of it"
)
class RealCamVidTest(_CamVidCase):

  def test_prepares_in_full(self):
    self.source = REAL
    self.assertTrue(self.prepare(any_size=False))
    rows = records.summary(camvid.SPEC, self.data_dir).splitlines()
    self.assertRegex(rows[1], r"^train +367 +11/11 +3.9")
    self.assertRegex(rows[3], r"^test +233 +11/11 +3.8")
    source = self.open("train")
    self.assertEqual(np.unique(source.sizes(), axis=0).tolist(), [[360, 480]])
    sample = [source[index] for index in range(0, 367, 8)]
    mean = np.mean([e["image"].mean(axis=(0, 1)) for e in sample], axis=0)
    np.testing.assert_allclose(mean, camvid.SPEC.mean, atol=5)
    labels = np.concatenate([e["label"].ravel() for e in sample])
    self.assertSetEqual(set(np.unique(labels)), {*range(11), 255})
    # Road is a third of the pixels; a shifted label map would move it.
    self.assertAlmostEqual(np.mean(labels == 3), 0.317, delta=0.03)


if __name__ == "__main__":
  absltest.main()
