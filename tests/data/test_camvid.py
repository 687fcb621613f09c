"""Tests for ctxseg_jax.data.camvid and ctxseg_jax.data.prepare."""

import os
import pathlib
import pickle
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image
import running
import tensorflow_datasets as tfds

from ctxseg_jax import errors
from ctxseg_jax.data import builder
from ctxseg_jax.data import packing
from ctxseg_jax.data import prepare
from ctxseg_jax.data import records
from ctxseg_jax.data.datasets import camvid

HEIGHT, WIDTH = 18, 24
SPLITS = {"train": ["a1", "a2", "a3"], "val": ["b1"], "test": ["c1", "c2"]}
REAL = pathlib.Path(
    os.environ.get("CTXSEG_CAMVID")
    or pathlib.Path(__file__).parents[3] / "shared" / "data" / "camvid"
)


def _draw(name):
  rng = np.random.default_rng(list(name.encode()))
  image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
  label = rng.integers(0, 12, (HEIGHT, WIDTH), np.uint8)
  return Image.fromarray(image), Image.fromarray(label)


def _write_segnet(root, lists=True):
  for split, names in SPLITS.items():
    (root / split).mkdir(parents=True)
    (root / f"{split}annot").mkdir()
    lines = []
    for name in names:
      image, label = _draw(name)
      image.save(root / split / f"{name}.png")
      label.save(root / f"{split}annot" / f"{name}.png")
      lines.append(
          f"/SegNet/CamVid/{split}/{name}.png "
          f"/SegNet/CamVid/{split}annot/{name}.png\n"
      )
    if lists:
      (root / f"{split}.txt").write_text("".join(lines))


def _write_repacked(root):
  (root / "splits").mkdir(parents=True)
  for split, names in SPLITS.items():
    (root / "images" / split).mkdir(parents=True)
    (root / "labels" / split).mkdir(parents=True)
    for name in names:
      image, label = _draw(name)
      image.save(root / "images" / split / f"{name}.jpg", quality=90)
      label.save(root / "labels" / split / f"{name}.png")
    (root / "splits" / f"{split}.txt").write_text("\n".join(names))


class _TreeTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.source = pathlib.Path(folder, "source")
    self.data_dir = pathlib.Path(folder, "data")

  def prepare(self, any_size=True):
    return packing.prepare(
        camvid.SPEC, self.data_dir, source=self.source, any_size=any_size
    )


class PrepareTest(_TreeTest):

  @parameterized.named_parameters(
      ("segnet", _write_segnet, ""),
      ("segnet_without_lists", lambda r: _write_segnet(r, lists=False), ""),
      ("segnet_inside", _write_segnet, "CamVid"),
      ("repacked", _write_repacked, ""),
      ("repacked_inside", _write_repacked, "CamVid"),
  )
  def test_layouts_hold_the_same_examples(self, write, inside):
    write(self.source / inside)
    self.assertTrue(self.prepare())
    for split, names in SPLITS.items():
      source = records.open_source(camvid.SPEC, split, self.data_dir)
      source = pickle.loads(pickle.dumps(source))  # As a worker gets it.
      self.assertLen(source, len(names))
      self.assertEqual(source.sizes().tolist(), [[HEIGHT, WIDTH]] * len(names))
      for index, name in enumerate(names):
        example = source[index]
        image, label = _draw(name)
        raw = np.array(label)
        self.assertEqual(example["name"], name)
        np.testing.assert_array_equal(
            example["label"], np.where(raw == 11, 255, raw)
        )
        if write is not _write_repacked:
          np.testing.assert_array_equal(example["image"], np.array(image))

  def test_image_bytes_are_kept(self):
    _write_repacked(self.source)
    self.prepare()
    records = tfds.builder_from_directory(
        str(packing.dataset_dir(camvid.SPEC, self.data_dir))
    ).as_data_source("val", decoders={"image": tfds.decode.SkipDecoding()})
    file = self.source / "images" / "val" / "b1.jpg"
    self.assertEqual(records[0]["image"], file.read_bytes())

  def test_list_decides_order_and_members(self):
    _write_segnet(self.source)
    (self.source / "train.txt").write_bytes(
        "\ufeff/SegNet/CamVid/train/a3.png /SegNet/CamVid/trainannot/a3.png\r\n"
        "\r\n   \r\n"
        "train/a1.png trainannot/a1.png\r\n".encode()
    )
    pairs = camvid.SPEC.find(self.source, any_size=True)
    self.assertEqual([pair.name for pair in pairs["train"]], ["a3", "a1"])

  def test_palette_labels_are_read_as_indices(self):
    _write_segnet(self.source)
    _, label = _draw("b1")
    palette = Image.fromarray(np.array(label), "P")
    palette.putpalette([c for color in camvid.PALETTE for c in color])
    palette.save(self.source / "valannot" / "b1.png")
    self.prepare()
    example = records.open_source(camvid.SPEC, "val", self.data_dir)[0]
    raw = np.array(label)
    np.testing.assert_array_equal(
        example["label"], np.where(raw == 11, 255, raw)
    )

  def test_again_does_nothing(self):
    _write_segnet(self.source)
    self.assertTrue(self.prepare())
    shutil.rmtree(self.source)
    self.assertFalse(self.prepare())

  def test_killed_preparation_leaves_nothing_that_counts(self):
    _write_segnet(self.source)
    folder = packing.dataset_dir(camvid.SPEC, self.data_dir)
    left = folder.parent / f"incomplete.ABC123_{folder.name}"
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("{}")
    self.assertFalse(packing.is_prepared(camvid.SPEC, self.data_dir))
    with self.assertRaisesRegex(errors.UserError, "not prepared"):
      records.open_source(camvid.SPEC, "val", self.data_dir)
    self.prepare()
    self.assertFalse(left.exists())
    self.assertLen(records.open_source(camvid.SPEC, "val", self.data_dir), 1)

  def test_summary_counts_ignored_pixels(self):
    _write_segnet(self.source)
    self.prepare()
    ignored = np.mean(np.array(_draw("b1")[1]) == 11)
    text = records.summary(camvid.SPEC, self.data_dir)
    self.assertRegex(text, rf"val +1 +11/11 +{ignored:.2%}")

  def test_excerpt_may_lack_a_split(self):
    _write_segnet(self.source)
    shutil.rmtree(self.source / "test")
    shutil.rmtree(self.source / "testannot")
    self.prepare()
    with self.assertRaisesRegex(errors.UserError, "no split 'test'; .*train"):
      records.open_source(camvid.SPEC, "test", self.data_dir)

  def test_lost_record_file_is_named(self):
    _write_segnet(self.source)
    self.prepare()
    folder = packing.dataset_dir(camvid.SPEC, self.data_dir)
    (lost,) = folder.glob("*-val.array_record*")
    lost.unlink()
    with self.assertRaisesRegex(errors.UserError, f"{lost.name}: no such file"):
      records.open_source(camvid.SPEC, "val", self.data_dir)


class FaultTest(_TreeTest):

  def test_other_counts_need_the_flag(self):
    _write_segnet(self.source)
    with self.assertRaisesRegex(
        errors.UserError,
        "found 3 train, 1 val, 2 test pairs; expected 367 train, 101 val, 233 "
        "test.*--any_size",
    ):
      self.prepare(any_size=False)

  def test_missing_source(self):
    with self.assertRaisesRegex(errors.UserError, r"source: .*\(No such file"):
      self.prepare()
    self.source.mkdir()
    with self.assertRaisesRegex(errors.UserError, r"source: .*\(empty folder"):
      self.prepare()

  def test_unprepared_dataset_tells_the_command(self):
    with self.assertRaisesRegex(
        errors.UserError,
        "python -m ctxseg_jax.data.prepare --dataset camvid --source DIR "
        f"--data_dir {self.data_dir}$",
    ):
      records.open_source(camvid.SPEC, "train", self.data_dir)

  def test_full_disk(self):
    _write_segnet(self.source)
    with mock.patch.object(
        builder.Builder,
        "write",
        # What the writer of array_record raised on a full disk.
        side_effect=RuntimeError(
            "Failed to finalize writing of split\nwrite() failed: No space "
            "left on device; writing train.array_record"
        ),
    ):
      with self.assertRaisesRegex(errors.UserError, "No space left on device"):
        self.prepare()

  def test_data_dir_that_is_a_file(self):
    _write_segnet(self.source)
    self.data_dir.write_text("")
    with self.assertRaisesRegex(errors.UserError, "cannot be written"):
      self.prepare()


class CommandTest(_TreeTest):

  def _run(self, *argv):
    return running.run(prepare, *argv)

  def test_prepares_then_says_it_is_there(self):
    _write_segnet(self.source)
    argv = ["--dataset=camvid", f"--source={self.source}", "--any_size"]
    argv += ["--data_dir", str(self.data_dir)]
    code, out, _ = self._run(*argv)
    self.assertEqual(code, 0)
    self.assertRegex(out, r"train +3 +11/11")
    code, out, _ = self._run(*argv)
    self.assertEqual(code, 0)
    self.assertStartsWith(out, "camvid is already prepared")

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
    code, _, err = self._run(*argv)
    self.assertEqual(code, 2)
    self.assertStartsWith(err, "error: ")
    self.assertEqual(err.count("\n"), 1)
    self.assertIn(words, err)

  def test_runs_as_a_module_without_tensorflow_and_jax(self):
    _write_segnet(self.source)
    folders = [f"--source={self.source}", f"--data_dir={self.data_dir}"]
    done = running.run_alone(prepare, "--dataset=camvid", *folders)
    self.assertEqual(done.returncode, 2)
    self.assertStartsWith(done.stderr, "error: ")
    self.assertEqual(done.stderr.count("\n"), 1)


@absltest.skipUnless(
    REAL.is_dir(), "no CamVid; set CTXSEG_CAMVID to a folder of it"
)
class RealCamVidTest(_TreeTest):

  def test_prepares_in_full(self):
    self.source = REAL
    self.assertTrue(self.prepare(any_size=False))
    rows = records.summary(camvid.SPEC, self.data_dir).splitlines()
    self.assertRegex(rows[1], r"^train +367 +11/11 +3.9")
    self.assertRegex(rows[3], r"^test +233 +11/11 +3.8")
    source = records.open_source(camvid.SPEC, "train", self.data_dir)
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
