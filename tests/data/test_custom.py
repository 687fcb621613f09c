"""Tests for ctxseg_jax.data.custom and ctxseg_jax.data.classes."""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image
import running
import tiny

from configs import common
from configs import custom as custom_config
from configs import quickstart
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import classes
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import own_files
from ctxseg_jax.data import packing
from ctxseg_jax.data import prepare
from ctxseg_jax.data import records
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import predictions


class FolderCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.root = self.folder / "My Streets 2"
    self.data_dir = self.folder / "data"


class ClassesTest(FolderCase):

  def read(self, content):
    path = self.folder / "classes.txt"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return classes.read(path)

  def test_names_alone_get_the_palette_of_voc(self):
    found = self.read("\ufeffsky\r\n\r\n  street  lamp \r\n# no\nroute_66\n")
    self.assertEqual(found.names, ("sky", "street lamp", "route_66"))
    self.assertEqual(found.palette, datasets.DATASETS["voc2012"].palette[:3])
    self.assertEmpty(found.colors)

  def test_colours(self):
    found = self.read("__ignore__ 0 0 0\nsky 1 2 3\nstreet lamp 4 5 255\n")
    self.assertEqual(found.names, ("sky", "street lamp"))
    self.assertEqual(found.palette, ((1, 2, 3), (4, 5, 255)))
    self.assertEqual(
        found.colors, {(0, 0, 0): 255, (1, 2, 3): 0, (4, 5, 255): 1}
    )

  @parameterized.parameters(
      # Without a line, 255 is ignored unless a class has it.
      (("a = 80", "b = 160 240-242"),
          ((80, 80, 0), (160, 160, 1), (240, 242, 1), (255, 255, 255))),
      (("a = 0", "b=255"), ((0, 0, 0), (255, 255, 1))),
      (("a = 0-127", "b = 128-65535"), ((0, 127, 0), (128, 65535, 1))),
      (("__ignore__ = 0", "a = 1", "b = 2"),
          ((0, 0, 255), (1, 1, 0), (2, 2, 1), (255, 255, 255))),
      (("a", "b", "__ignore__ = 7"),
          ((0, 0, 0), (1, 1, 1), (7, 7, 255), (255, 255, 255))),
  )  # fmt: skip
  def test_values(self, lines, values):
    found = self.read("\n".join(lines))
    self.assertEqual((found.names, found.values), (("a", "b"), values))
    self.assertEmpty(found.colors)

  def test_colours_of_labels_and_of_pictures(self):
    found = self.read("a 1 1 1 = 9,9,9 8,8,8\nb 2 2 2\n__ignore__ = 0,0,0")
    self.assertEqual(found.palette, ((1, 1, 1), (2, 2, 2)))
    self.assertEqual(
        found.colors,
        {(9, 9, 9): 0, (8, 8, 8): 0, (2, 2, 2): 1, (0, 0, 0): 255},
    )
    self.assertEmpty(found.values)
    found = self.read("a 1 1 1 = 5\nb 2 2 2 = 6")
    self.assertEqual(found.palette, ((1, 1, 1), (2, 2, 2)))
    self.assertEmpty(found.colors)
    self.assertEqual(
        self.read("a=1,1,1\nb=2,2,2").palette, ((1,) * 3, (2,) * 3)
    )

  @parameterized.parameters(
      (
          "a = 5\nb\n",
          r"classes.txt:2: no value behind =, though other lines have one",
      ),
      ("a = 5 6,6,6\nb = 7", r":2: no colour behind =, though other lines"),
      ("a = 1-5\nb = 5\n", r":2: value 5 occurs twice .*, first in .*txt:1"),
      ("__ignore__ = 0\na\nb", r":2: value 0 occurs twice \(without = they c"),
      ("a = 1,1,1\nb = 1,1,1", r":2: colour \(1, 1, 1\) occurs twice"),
      ("a = 5, 6\nb = 1", r":1: found 'a = 5, 6'; expected values of 0-65535"),
      ("a = x\nb = 1", r":1: found 'a = x'; expected values of 0-65535, ran"),
      ("a =\nb = 1", r":1: found 'a ='; expected values of 0-65535"),
      ("a = 65536\nb = 1", r":1: found 'a = 65536'; expected values of 0-655"),
      ("a = 000012345\nb = 1", r":1: found 'a = 000012345'; expected values"),
      ("a = 9-3\nb = 1", r":1: found 'a = 9-3'; expected values of 0-65535"),
      ("a = 1,1,256\nb", r":1: found 'a = 1,1,256'; expected values of 0-65"),
      ("= 5\nb", r":1: found '= 5'; expected a class per line"),
      ("0 a = 5\nb", r":1: found '0 a = 5'; .*ids are not written"),
      ("", r"classes.txt: found 0 classes; expected 2 to 255"),
      ("road\n", r"classes.txt: found 1 classes; .*background"),
      (
          "\n".join(f"c{i}" for i in range(256)),
          r"found 256 classes; expected 2 to",
      ),
      ("a\nb\na\n", r"classes.txt:3: class a occurs twice, first in .*txt:1"),
      ("a 1 1 1\nb 1 1 1\n", r":2: colour \(1, 1, 1\) occurs twice"),
      ("a 1 1 1\nb\n", r":2: no colour, though other lines have one"),
      ("a 1 1 1\nb 1 1 256\n", r":2: found 'b 1 1 256'; expected a class per"),
      ("a 1 1 1\nb 1 -1 2\n", r":2: found 'b 1 -1 2'; expected a class per"),
      ("a\n1 2 3\n", r":2: found '1 2 3'; expected a class per line"),
      ("a\nb\0c\n", r":2: found 'b\\x00c'; expected a class per line"),
      ("a\n0 road\n", r":2: found '0 road'; .*ids are not written"),
      ("a\nroad 128\n", r":2: found 'road 128'; .*Complete the colour"),
      ("a\nroad 128 64.0 128\n", r":2: found 'road 128 64.0 128'"),
      ("a\nroad, 128\n", r":2: found 'road, 128'; .*write = before what la"),
      ("a\n1\n", r":2: found '1'; expected a class per line"),
      ("a\nb  # no\n", r":2: found 'b  # no'; expected comments on lines of"),
      ("__ignore__\na\nb\n", r":1: found '__ignore__'; .*255 is ignored wi"),
      ("__ignore__ 0\na\nb\n", r":1: found '__ignore__ 0'; expected a class"),
      ("a 1 1 1\n" + "b 1 1 " + "9" * 5000, r":2: found 'b 1 1 9{54}'\.\.\.;"),
      ("a\n" * (1 << 20), r"classes.txt: 2,097,152 bytes; expected a text fi"),
      ("\udcff\udcfea\0", r"classes.txt: not UTF-8 text \(byte 0xff"),
  )
  def test_odd_files_are_refused(self, content, words):
    with self.assertRaisesRegex(errors.UserError, words) as raised:
      self.read(content)
    self.assertNotIn("\n", str(raised.exception))

  def test_missing_file(self):
    with self.assertRaisesRegex(errors.UserError, "b.txt: no such file; exp"):
      classes.read(self.folder / "b.txt")


class LayoutTest(FolderCase):

  def setUp(self):
    super().setUp()
    miniatures.write_custom(self.root)

  def found(self):
    return {
        split: [pair.name for pair in items]
        for split, items in custom.from_folder(self.root)
        .find(None, any_size=False)
        .items()
    }

  def write_list(self, lines, name="train.txt"):
    (self.root / name).parent.mkdir(exist_ok=True)
    (self.root / name).write_bytes(lines.encode("utf-8", "surrogateescape"))

  def flatten(self):
    """Moves all files out of the folders of splits."""
    for kind in ("images", "labels"):
      for path in sorted((self.root / kind).glob("*/*")):
        path.rename(self.root / kind / path.name)
      for split in ("train", "val"):
        (self.root / kind / split).rmdir()

  @parameterized.parameters(
      ("images", "labels"), ("images", "masks"), ("img_dir", "ann_dir")
  )
  def test_folders_of_splits(self, image_dir, label_dir):
    (self.root / "images").rename(self.root / image_dir)
    (self.root / "labels").rename(self.root / label_dir)
    (self.root / image_dir / ".DS_Store").write_text("")
    (self.root / image_dir / "train" / "notes.md").write_text("")
    expected = {
        "train": [f"train{i}" for i in range(9)],
        "val": ["val0", "val1"],
    }
    self.assertEqual(self.found(), expected)

  @parameterized.parameters("_mask", "_label", "-GT", "_Segmentation", ".mask")
  def test_names_of_labels_may_say_what_they_are(self, end):
    expected = self.found()
    for path in list((self.root / "labels").glob("*/*.png")):
      path.rename(path.with_name(f"{path.stem}{end}.png"))
    self.assertEqual(self.found(), expected)
    self.write_list("train3\ntrain/train1\n")
    self.assertEqual(self.found(), {"train": ["train/train3", "train/train1"]})

  def test_names_that_do_not_match_at_all_are_one_fault(self):
    for path in list((self.root / "labels/val").glob("*.png")):
      path.rename(path.with_name(f"{path.stem}_odd.png"))
    with self.assertRaisesRegex(
        errors.UserError, r"labels/val: no label of 2 has the name of an image "
        r"\(val0_odd.png, where images are val0.jpg and so on\).*val.txt\.$"
    ):  # fmt: skip
      self.found()

  def test_an_image_may_be_called_like_a_label(self):
    for kind, end in (("images", "jpg"), ("labels", "png")):
      path = self.root / f"{kind}/train/train3.{end}"
      path.rename(path.with_name(f"train4_mask.{end}"))
    found = self.found()["train"]
    self.assertContainsSubset(["train4", "train4_mask"], found)
    # And of two labels none is chosen.
    for end in ("_gt", "_label"):
      shutil.copy(
          self.root / "labels/train/train4.png",
          self.root / f"labels/train/train5{end}.png",
      )
    (self.root / "labels/train/train5.png").unlink()
    with self.assertRaisesRegex(errors.UserError, "train5_label.png: image is"):
      self.found()

  def test_one_split_where_there_are_no_folders(self):
    self.flatten()
    self.assertLen(self.found()["train"], 11)
    self.assertSetEqual(set(self.found()), {"train"})

  def test_names_may_start_anew_in_subfolders_and_splits(self):
    for folder, end in (("images", "jpg"), ("labels", "png")):
      files = self.root / folder
      (files / "train/aachen").mkdir()
      (files / f"train/train3.{end}").rename(
          files / f"train/aachen/train0.{end}"
      )
      (files / f"val/val0.{end}").rename(files / f"val/train0.{end}")
    found = self.found()
    self.assertContainsSubset(["aachen/train0", "train0"], found["train"])
    self.assertEqual(found["val"], ["train0", "val1"])

  @parameterized.parameters("train.txt", "splits/train.txt")
  def test_lists_of_paths(self, name):
    self.flatten()
    self.write_list(
        "\ufeffimages/train3.jpg labels/train3.png\r\n\r\n"
        "images/val0.jpg\tlabels/val0.png\r\n"
        ".\\images\\train1.jpg .\\labels\\train1.png\r\n",
        name,
    )
    self.assertEqual(
        self.found(),
        {"train": ["images/train3", "images/val0", "images/train1"]},
    )

  @parameterized.parameters(
      "train3\ntrain1\n",
      "train3.jpg\ntrain1.png\n",
      "images/train3.jpg\nimages/train1.jpg\n",
      "/home/me/data/images/train3.jpg\ntrain1\n",
  )
  def test_lists_of_names(self, lines):
    self.flatten()
    self.write_list(lines)
    self.write_list("val1\n", "val.txt")
    self.assertEqual(
        self.found(), {"train": ["train3", "train1"], "val": ["val1"]}
    )

  def test_lists_of_names_choose_from_folders_of_splits(self):
    self.write_list("train3\ntrain/train1\n")
    self.assertEqual(self.found(), {"train": ["train/train3", "train/train1"]})

  def test_lists_of_any_folders_and_names(self):
    self.flatten()
    (self.root / "images").rename(self.root / "a")
    (self.root / "labels").rename(self.root / "b")
    (self.root / "b/train3.png").rename(self.root / "b/other.png")
    (self.root / "a/train1.jpg").rename(self.root / "a/two words.jpg")
    self.write_list("a/train3.jpg b/other.png\na/two words.jpg\tb/train1.png\n")
    self.assertEqual(self.found(), {"train": ["a/train3", "a/two words"]})

  def test_folders_may_be_links_but_files_may_not_lead_out(self):
    self.flatten()
    elsewhere = self.folder / "elsewhere"
    (self.root / "images").rename(elsewhere)
    (self.root / "images").symlink_to(elsewhere)
    self.write_list("images/train3.jpg labels/train3.png\n")
    self.assertEqual(self.found(), {"train": ["images/train3"]})
    secret = self.folder / "secret.png"
    shutil.copy(self.root / "labels/train3.png", secret)
    (self.root / "labels/train3.png").unlink()
    (self.root / "labels/train3.png").symlink_to(secret)
    with self.assertRaisesRegex(
        errors.UserError, "txt:1: labels/train3.png leads out"
    ):
      self.found()

  @parameterized.parameters(
      ("images/no.jpg labels/val0.png", r"txt:1: images/no.jpg is missing"),
      ("images/val0.jpg labels/no.png", r"txt:1: labels/no.png is missing"),
      ("val0\nval0", r"txt:2: val0 occurs twice, first in .*train.txt:1"),
      (
          "val0\nimages/val0.jpg labels/val0.png",
          r"txt:2: images/val0.jpg occurs twice, first in .*train.txt:1",
      ),
      ("val1", r"val1.jpg: id val1 is in val and in train"),
      ("../a.jpg b.png", r"train.txt:1: \.\./a.jpg leads out of the folder"),
      ("a/../../a.jpg b.png", r"txt:1: a/\.\./\.\./a.jpg leads out"),
      ("/etc/passwd b.png", r"txt:1: /etc/passwd leads out of the folder"),
      ("a b c", r"train.txt:1: found 'a b c'; expected an image and its"),
      ("a\0b c", r"train.txt:1: found 'a\\x00b c'; expected an image and"),
      ("a\x1b[31m", r"train.txt:1: found 'a\\x1b\[31m'; expected"),
      ("\n \n", r"train.txt: no lines; expected an image and its label"),
      ("\udcff", r"train.txt: not UTF-8 text"),
      ("nowhere", r"train.txt:1: nowhere: image is missing"),
  )
  def test_odd_lines_are_refused(self, lines, words):
    self.flatten()
    self.write_list(lines)
    self.write_list("val1\n", "val.txt")
    with self.assertRaisesRegex(errors.UserError, words) as raised:
      self.found()
    self.assertNotIn("\n", str(raised.exception))

  def test_a_name_in_a_list_needs_the_folders(self):
    shutil.rmtree(self.root / "images")
    self.write_list("train3\n")
    with self.assertRaisesRegex(errors.UserError, "txt:1: found 'train3' alo"):
      self.found()

  @parameterized.parameters("images", "labels")
  def test_unknown_layouts_are_refused(self, lost):
    shutil.rmtree(self.root / lost)
    with self.assertRaisesRegex(
        errors.UserError, r"My Streets 2: no known layout \(it holds classes.t"
    ):
      self.found()

  @parameterized.parameters((2, "1 more fault"), (3, "2 more faults"))
  def test_more_faults_are_counted(self, count, words):
    for i in range(count):
      (self.root / f"labels/train/train{i}.png").unlink()
    with self.assertRaisesRegex(
        errors.UserError, rf"0.jpg: label is missing.*\(and {words}\)$"
    ):
      self.found()

  @parameterized.parameters("{0}\n", "images/{0}.jpg labels/{0}.png\n")
  def test_a_list_takes_as_long_as_it_has_lines(self, line):
    self.flatten()
    self.write_list("".join(line.format(f"train{i}") for i in range(9)))
    list_both = own_files._list_both

    def listed(folders):
      return [
          dataclasses.replace(found, files=_LookedUp(found.files))
          for found in list_both(folders)
      ]

    with mock.patch.object(own_files, "_list_both", side_effect=listed) as call:
      found, _ = own_files.find(self.root)
    self.assertLen(found["train"], 9)
    call.assert_called_once()


class _LookedUp(dict):
  """A dict that no line may go through as a whole."""

  def __iter__(self):
    raise AssertionError("not a look-up")

  keys = values = items = __iter__


class SpecTest(FolderCase):

  def prepare(self):
    spec = custom.from_folder(self.root)
    packing.ensure_prepared(spec, self.data_dir)
    return spec

  @parameterized.parameters(False, True)
  def test_what_is_stored(self, colors):
    miniatures.write_custom(self.root, colors=colors)
    spec = self.prepare()
    self.assertEqual(spec.class_names, tuple(miniatures.CUSTOM_CLASSES))
    if colors:
      self.assertEqual(spec.palette, tuple(miniatures.CUSTOM_CLASSES.values()))
    self.assertRegex(spec.name, r"^my_streets_2_[0-9a-f]{10}$")
    source = records.open_source(spec, "train", self.data_dir)
    self.assertLen(source, 9)
    means = []
    for i in range(9):
      example = source[i]
      raw = miniatures.raw_label(f"train{i}", miniatures.CUSTOM_IDS)
      np.testing.assert_array_equal(example["label"], raw)
      means.append(example["image"].mean(axis=(0, 1)))
    np.testing.assert_allclose(spec.mean, np.mean(means, axis=0), atol=0.01)

  def test_the_command_packs_it_too(self):
    miniatures.write_custom(self.root)
    flags = ["--dataset=custom", f"--data_dir={self.data_dir}"]
    code, _, err = running.run(prepare, *flags)
    self.assertEqual(code, 2)
    self.assertStartsWith(err, "error: --source: missing; expected")
    code, out, _ = running.run(prepare, *flags, f"--source={self.root}")
    self.assertEqual(code, 0)
    self.assertRegex(out, r"train +9 +3/3 +25.00%\nval +2 +3/3 ")
    spec = custom.from_folder(self.root)
    self.assertTrue(packing.is_prepared(spec, self.data_dir))

  def test_an_unknown_colour_is_refused(self):
    miniatures.write_custom(self.root, colors=True)
    rgb = np.array(Image.open(self.root / "labels/train/train3.png"))
    rgb[0, :4] = (1, 2, 3)
    Image.fromarray(rgb).save(self.root / "labels/train/train3.png")
    with self.assertRaisesRegex(
        errors.UserError, r"train3.png: RGB label with the colour \(1, 2, 3\)"
    ):
      self.prepare()

  def test_the_record_needs_no_folder(self):
    miniatures.write_custom(self.root, colors=True)
    spec = self.prepare()
    record = json.loads(json.dumps(custom.to_record(spec)))
    shutil.rmtree(self.root)
    again = custom.from_record(record, self.root)
    for field in ("name", "class_names", "palette", "mean", "split_sizes"):
      self.assertEqual(getattr(again, field), getattr(spec, field))
    self.assertEqual(custom.to_record(again), record)
    self.assertLen(records.open_source(again, "val", self.data_dir), 2)
    shutil.rmtree(self.data_dir)
    with self.assertRaisesRegex(errors.UserError, "2: no such folder; expec"):
      records.open_source(again, "val", self.data_dir)

  @parameterized.parameters(
      (None,),
      ("text",),
      ({"name": "a"},),
      (..., "colors", [1]),
      (..., "colors", [[0, 0, 0, 256]]),
      (..., "colors", [[0, 0, 0, "sky"]]),
      (..., "palette", [[1, 2, 3]]),
      (..., "values", [[0, 1]]),
      (..., "values", [[0, 0, 0], [1, 1, 1], [2, 2, 256]]),
      (..., "class_names", "sky"),
      (..., "class_names", [1, 2, 3]),
      (..., "class_names", [f"c{i}" for i in range(300)]),
      (..., "name", "../../elsewhere"),
      (..., "name", 5),
      (..., "mean", ["red", 0, 0]),
      (..., "mean", [float("inf"), 0, 0]),
      (..., "split_sizes", 7),
  )
  def test_a_record_that_is_none_is_refused(self, record, *change):
    miniatures.write_custom(self.root)
    if change:
      spec = custom.from_folder(self.root)
      record = custom.to_record(spec) | dict([change])
    with self.assertRaisesRegex(errors.UserError, "config: data.spec: .*trai"):
      custom.from_record(record, self.root)

  def test_a_changed_folder_is_another_dataset(self):
    miniatures.write_custom(self.root)
    spec = custom.from_folder(self.root)
    self.assertEqual(custom.from_folder(self.root).name, spec.name)
    path = self.root / "labels/train/train0.png"
    time = path.stat().st_mtime_ns
    os.utime(path, ns=(time, time + 1))
    self.assertNotEqual(custom.from_folder(self.root).name, spec.name)
    with self.assertRaisesRegex(errors.UserError, "files have changed since"):
      packing.ensure_prepared(spec, self.data_dir)
    os.utime(path, ns=(time, time))
    self.assertEqual(custom.from_folder(self.root).name, spec.name)
    self.root.rename(self.root.with_name("my streets 2"))
    self.root = self.root.with_name("my streets 2")
    self.assertEqual(custom.from_folder(self.root).name, spec.name)

  def test_a_single_split_is_taken_in_parts(self):
    miniatures.write_custom(self.root)
    for kind in ("images", "labels"):
      shutil.rmtree(self.root / kind / "val")
    spec = self.prepare()
    with self.assertRaisesRegex(
        errors.UserError, r"no split 'val'; expected one of train, or a part "
        r"of one such as train\[:90%\]",
    ):  # fmt: skip
      records.open_source(spec, "val", self.data_dir)
    source = records.open_source(spec, "train[7:]", self.data_dir)
    self.assertEqual([source[i]["name"] for i in (0, 1)], ["train7", "train8"])


def write_blocks(root):
  """Writes images in which the colour is the class, with some noise."""
  rng = np.random.default_rng(0)
  (root / "images").mkdir(parents=True)
  (root / "labels").mkdir()
  (root / "classes.txt").write_text("red\ngreen\nblue\n")
  colors = np.array([(220, 40, 40), (40, 220, 40), (40, 40, 220)])
  for split, count in (("train", 12), ("val", 3)):
    names = [f"{split}{i}" for i in range(count)]
    for name in names:
      label = np.kron(rng.integers(0, 3, (4, 5)), np.ones((12, 12), int))
      image = colors[label] + rng.integers(-30, 31, (48, 60, 3))
      Image.fromarray(image.astype(np.uint8)).save(root / f"images/{name}.png")
      label[:2] = 255
      Image.fromarray(label.astype(np.uint8)).save(root / f"labels/{name}.png")
    (root / f"{split}.txt").write_text("\n".join(names))


class TrainTest(FolderCase):

  def setUp(self):
    super().setUp()
    self.enterContext(tiny.on_one_device())

  def config(self):
    config = custom_config.get_config("smoke")
    config.total_steps = 20
    config.checkpoint_every = 20
    config.eval_every = 20
    config.init_from.source = ""
    config.data.eval_split = "val"
    config.data.crop_size = (32, 32)
    config.data.short_side = config.eval.short_side = None
    config.data.scale_range = (1.0, 1.0)
    # A small network, which compiles in little time.
    config.model.backbone = dict(name="shallow", channels=8)
    config.model.head = dict(name="fcn", channels=8, dropout_rate=0.0)
    config.optim = common.sgd(0.1, 1e-4)
    config.data.root = str(self.root)
    config.data.data_dir = str(self.data_dir)
    return config

  def test_trains_and_is_used_without_the_folder(self):
    write_blocks(self.root)
    workdir = self.folder / "run"
    experiment.train_and_evaluate(self.config(), str(workdir))
    report = json.loads((workdir / "eval/20.json").read_text())
    self.assertEqual(report["class_names"], ["red", "green", "blue"])
    self.assertEqual(report["num_images"], 3)
    self.assertEqual(np.sum(report["confusion_matrix"]), 3 * 46 * 60)
    # The colours tell the classes, so that a network that saw the right
    # labels passes what any constant prediction reaches.
    self.assertGreater(report["miou"], 0.4)

    # A resume finds the same dataset; a changed one is refused.
    state = experiment.train_and_evaluate(self.config(), str(workdir))
    self.assertEqual(int(state.step), 20)
    with open(self.root / "classes.txt", "a") as file:
      file.write("\n")
    with self.assertRaisesRegex(errors.UserError, "another config: data.spec"):
      experiment.train_and_evaluate(self.config(), str(workdir))

    image = self.folder / "photo.png"
    shutil.copy(self.root / "images/val0.png", image)
    shutil.rmtree(self.root)
    trained = experiment.load(workdir)
    self.assertEqual(trained.spec.class_names, ("red", "green", "blue"))
    predictor = trained.predictor()
    source = records.open_source(trained.spec, "val", self.data_dir)
    again, _ = evaluate.evaluate(
        predictor, trained.variables, source, trained.spec, split="val"
    )
    self.assertEqual(again["confusion_matrix"], report["confusion_matrix"])
    predictions.write_maps(
        predictor, trained.variables, [image], self.folder / "out", trained.spec
    )
    self.assertEqual(
        np.array(Image.open(self.folder / "out/photo.png")).shape, (48, 60)
    )

  def test_a_relative_root_is_found_from_anywhere(self):
    write_blocks(self.root)
    config = self.config().to_dict()
    config["data"]["root"] = os.path.relpath(self.root)
    self.addCleanup(os.chdir, os.getcwd())
    parsed = experiment.parse(config)
    os.chdir(self.folder)
    self.assertEqual(parsed.config["data"]["root"], str(self.root))
    again = experiment.parse(parsed.config)
    self.assertLen(again.spec.find(None, any_size=False)["train"], 12)

  def test_the_root_is_asked_for(self):
    config = self.config()
    config.data.root = ""
    with self.assertRaisesRegex(
        errors.UserError, r"data.root: missing; .*Pass --config.data.root=DIR"
    ):
      experiment.train_and_evaluate(config, str(self.folder / "run"))

  def test_a_root_is_of_own_data_alone(self):
    config = quickstart.get_config().to_dict()
    config["data"]["root"] = "x"
    with self.assertRaisesRegex(errors.UserError, "unknown key 'data.root'"):
      experiment.parse(config)

  def test_from_the_command_line(self):
    write_blocks(self.root)
    (self.root / "labels/train1.png").unlink()
    flags = [
        "--config=configs/custom.py:smoke",
        f"--config.data.root={self.root}",
        f"--config.data.data_dir={self.data_dir}",
        f"--workdir={self.folder / 'run'}",
    ]
    result = tiny.run("train.py", *flags)
    self.assertEqual(result.code, 2, result.stderr)
    self.assertLen(result.errors, 1)
    self.assertRegex(
        result.errors[0], "train.txt:2: .*/train1.png: label is missing"
    )


if __name__ == "__main__":
  absltest.main()
