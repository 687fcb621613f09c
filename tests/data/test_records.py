"""Tests for ctxseg_jax.data.records."""

import concurrent.futures
import json
import os
import pathlib
import pickle
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import builder
from ctxseg_jax.data import images
from ctxseg_jax.data import packing
from ctxseg_jax.data import records
from ctxseg_jax.data import spec as spec_lib

NUM_IMAGES = {"train": 12, "val": 3, "few": 1, "none": 0}


def _size(index):
  return 10 + index, 20 + index


def _find(source, *, any_size):
  del source, any_size
  return {k: [(k, i) for i in range(n)] for k, n in NUM_IMAGES.items()}


def _read(spec, item):
  del spec
  split, index = item
  size = _size(index)
  # Noise, which takes the file beyond the one block that all files have.
  rng = np.random.default_rng(index)
  return spec_lib.Example(
      f"{split}{index}",
      images.encode_png(rng.integers(0, 256, (*size, 3), np.uint8)),
      np.full(size, index % 2, np.uint8),
  )


SPEC = spec_lib.DatasetSpec(
    name="squares",
    class_names=("one", "two"),
    palette=((0, 0, 0), (255, 255, 255)),
    label_map=spec_lib.label_map({0: 0, 1: 1}, 255),
    mean=(0.0, 0.0, 0.0),
    split_sizes=dict.fromkeys(NUM_IMAGES),
    find=_find,
    read=_read,
    needs_source=False,
)


class RecordsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    # Names that a shell, a glob or a reader could take for something else.
    home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.data_dir = home / r"d\ata [0:5] *ä"
    self.enterContext(mock.patch.dict(os.environ, HOME=str(home)))
    # Four examples in a file.
    self.enterContext(mock.patch.object(builder, "_SHARD_BYTES", 5000))
    packing.prepare(SPEC, self.data_dir)
    self.folder = packing.dataset_dir(SPEC, self.data_dir)

  def open(self, split="train"):
    return records.open_source(SPEC, split, self.data_dir)

  def assert_refused(self, words, split="train"):
    with self.assertRaisesRegex(errors.UserError, words) as caught:
      list(self.open(split))
    self.assertNotIn("\n", str(caught.exception))

  @parameterized.parameters(
      ("train", "train", range(12)),
      ("train[:10%]", "train", range(1)),
      ("train[10:]", "train", range(10, 12)),
      ("train[-25%:]", "train", range(9, 12)),
      ("train[5:9]", "train", range(5, 9)),
      ("few[:90%]", "few", range(1)),
  )
  def test_what_a_split_selects(self, split, name, expected):
    source = self.open(split)
    examples = list(source)
    self.assertEqual(
        [e["name"] for e in examples], [f"{name}{i}" for i in expected]
    )
    self.assertEqual(
        source.sizes().tolist(), [list(_size(i)) for i in expected]
    )
    for example, i in zip(examples, expected, strict=True):
      self.assertEqual(example["image"].shape[:2], _size(i))
      self.assertEqual(np.unique(example["label"]).tolist(), [i % 2])

  def test_splits_add_up(self):
    names = [e["name"] for e in self.open("val+train[3:5]")]
    self.assertEqual(names, ["val0", "val1", "val2", "train3", "train4"])

  @parameterized.parameters(
      *("val[:0]", "val[2:1]", "val[300:400]", "val[abc]", "val[", "val[0]"),
      *("train[:1%]", "few[90%:]", "none", "vla", "", "val[:999%]", "val[::2]"),
      *("all[:5]", f"val[:{'9' * 5000}]"),
  )
  def test_a_split_without_examples_is_refused(self, split):
    self.assert_refused(
        r"^data: squares has no split .*; expected one of train, val, .*"
        r"train\[:90%\] \(.*there are 12 in train, 3 in val",
        split,
    )

  def test_sizes_read_no_record(self):
    source = self.open()
    for path in self.folder.glob("*.array_record*"):
      path.unlink()
    self.assertEqual([*map(tuple, source.sizes())], [*map(_size, range(12))])

  def test_threads_share_a_source(self):
    source = pickle.loads(pickle.dumps(self.open()))
    indices = np.random.default_rng(0).integers(0, 12, 400).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      examples = list(pool.map(source.__getitem__, indices))
    self.assertEqual(
        [e["name"] for e in examples], [f"train{i}" for i in indices]
    )

  def test_a_damaged_file_is_named(self):
    paths = sorted(self.folder.glob("*-train.array_record*"))
    self.assertGreater(len(paths), 2)
    path, whole = paths[1], paths[1].read_bytes()
    rng = np.random.default_rng(0)
    pattern = f"{path.name}: damaged .* prepare the dataset again"
    for length in rng.integers(0, len(whole), 20):
      path.write_bytes(whole[:length])
      self.assert_refused(pattern)
    num_found = 0
    for _ in range(100):
      data = bytearray(whole)
      data[rng.integers(len(data))] ^= 1 << rng.integers(8)
      path.write_bytes(data)
      try:
        names = [e["name"] for e in self.open()]
      except errors.UserError as error:
        self.assertRegex(str(error), pattern)
        num_found += 1
      else:  # A bit of the padding between blocks.
        self.assertEqual(names, [f"train{i}" for i in range(12)])
    self.assertGreater(num_found, 5)
    path.write_bytes(paths[2].read_bytes() if len(paths) > 3 else whole + whole)
    path.unlink()
    os.mkfifo(path)
    self.assert_refused(f"{path.name}: a pipe")

  def test_no_code_of_prepared_files_is_run(self):
    (self.data_dir / "evil.py").write_text("raise SystemExit('run')")
    self.enterContext(
        mock.patch.object(sys, "path", [str(self.data_dir), *sys.path])
    )
    path = self.folder / "features.json"
    text = path.read_text()
    self.assertIn("tensorflow_datasets.core", text)
    path.write_text(text.replace("tensorflow_datasets.core", "evil"))
    self.assertLen(list(self.open()), 12)
    self.assertNotIn("evil", sys.modules)

  @parameterized.parameters(
      dict(shard_lengths=[10**15]),
      dict(shard_lengths=[4, 4, 4, 2**63]),
      dict(shard_lengths=[-4, 16]),
      dict(shard_lengths=["12"]),
      dict(shard_lengths=[True] * 12),
      dict(shard_lengths={}),
      dict(shard_lengths=[12]),
      dict(sizes=[[10, 20]]),
      dict(sizes=[[0, 20]] * 12),
      dict(sizes=[[2**31, 20]] * 12),
      dict(sizes=[[30_000, 30_000]] * 12),
      dict(sizes=[[11, 20]] * 12),  # Known when an image is read.
      dict(sizes="much"),
      dict(label_pixels=[0]),
      dict(label_pixels=None),
      dict(more=1),
  )
  def test_a_forged_index_is_refused(self, **changes):
    path = self.folder / "metadata.json"
    index = json.loads(path.read_text())
    index["splits"]["train"] |= changes
    path.write_text(json.dumps(index))
    self.assert_refused(f"{self.folder.name}/.*: (damaged|no such file)")

  @parameterized.parameters(
      "", "[" * 10**5, "[]", '{"splits": 5}', "\0", "1e999"
  )
  def test_an_index_that_is_none_is_refused(self, text):
    (self.folder / "metadata.json").write_text(text)
    self.assert_refused("metadata.json: damaged")

  def test_forged_lengths_of_tfds_are_not_read(self):
    path = self.folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
      split["shardLengths"] = [str(2**62)] * 1000
    path.write_text(json.dumps(info))
    self.assertLen(self.open(), 12)

  def test_places(self):
    with self.assertRaisesRegex(
        errors.UserError, "^data_dir: gs://a: gs:// is not"
    ):
      records.open_source(SPEC, "val", "gs://a")
    with self.assertRaisesRegex(errors.UserError, r"^data_dir: a\\udcff: not"):
      packing.prepare(SPEC, os.fsdecode(b"a\xff"))
    short = "~/" + self.data_dir.name
    self.assertLen(records.open_source(SPEC, "val", short), 3)

  def test_nothing_is_left_beside_the_data(self):
    leftover = self.data_dir / "squares" / "incomplete.XY_2.0.0"
    leftover.mkdir()
    temporary = self.data_dir / "temporary"
    temporary.mkdir()
    with (
        mock.patch.object(tempfile, "tempdir", str(temporary)),
        mock.patch.object(builder._Shards, "close", side_effect=SystemExit),
        self.assertRaises(SystemExit),
    ):
      self.folder.rename(self.data_dir / "away")
      packing.prepare(SPEC, self.data_dir)
    self.assertEmpty(list(temporary.iterdir()))
    self.assertFalse(leftover.exists())


if __name__ == "__main__":
  absltest.main()
