"""Tests for ctxseg_jax.data.meanings, through the commands that use it."""

import json
import pathlib
import re
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image
import running

from ctxseg_jax.data import check
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import packing
from ctxseg_jax.data import prepare
from ctxseg_jax.data import records

_VOC = datasets.DATASETS["voc2012"].palette

# What labels hold for the ids 0, 1, 2 and 255, the ids that it comes to, and
# which proposal is right.
KINDS = {
    "spread": ((80, 160, 240, 255), (0, 1, 2, 255)),
    "spread_of_zero": ((0, 127, 254, 255), (0, 1, 2, 255)),
    "sixteen_bits": ((0, 30_000, 65_535, 255), (0, 1, 2, 255)),
    "zero_ignored": ((50, 100, 150, 0), (0, 1, 2, 255)),
    "shifted": ((1, 2, 3, 255), (0, 1, 2, 255)),
    "shifted_and_zero_ignored": ((1, 2, 3, 0), (0, 1, 2, 255), 1),
    "last_ignored": ((0, 1, 2, 3), (0, 1, 2, 255), 0),
    "spread_and_last_ignored": ((0, 9, 19, 99), (0, 1, 2, 255), 1),
    "white_is_a_class": ((0, 100, 255, 100), (0, 1, 2, 1)),
    "gray_tones_of_voc": (
        tuple(round(0.299 * r + 0.587 * g) for r, g, _ in _VOC[:3]) + (255,),
        (0, 1, 2, 255),
    ),
    "colours_of_voc": ((*_VOC[:3], (224, 224, 192)), (0, 1, 2, 255)),
}


def _write(root, table):
  miniatures.write_custom(root)
  for path in root.glob("labels/*/*.png"):
    raw = np.array(Image.open(path))
    # Pillow makes 16 bits, RGB or gray of what the table holds.
    values = np.array([table[i] for i in (0, 1, 2, 255)])
    dtype = np.uint16 if values.max() > 255 else np.uint8
    ids = np.where(raw == 255, 3, raw)
    Image.fromarray(values.astype(dtype)[ids]).save(path)


class MeaningsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder, "own")
    self.data_dir = pathlib.Path(folder, "data")

  def check(self):
    source = f"--source={self.root}"
    flags = ["--dataset=custom", source, "--num_workers=0"]
    code, out, _ = running.run(check, *flags)
    return code, out

  def proposed(self, index=0):
    """Returns a text to paste, after training said the same."""
    code, out = self.check()
    self.assertEqual(code, 2)
    text = re.findall(r"classes.txt, if .*:\n\n((?:.+\n)+)\n", out)[index]
    first = re.search("(?m)^fault: (?:custom: )?(.*)", out)[1]
    flags = ["--dataset=custom", f"--source={self.root}"]
    code, _, err = running.run(prepare, *flags, f"--data_dir={self.data_dir}")
    self.assertEqual(code, 2)
    self.assertIn(first, err)
    self.assertEqual(err.count("\n"), 1)
    self.assertEmpty(list(self.data_dir.rglob("*array_record*")))
    return text

  @parameterized.named_parameters((k, *v) for k, v in KINDS.items())
  def test_what_is_proposed_is_right_when_pasted(self, values, ids, index=0):
    table = dict(zip((0, 1, 2, 255), values, strict=True))
    _write(self.root, table)
    (self.root / "classes.txt").write_text(self.proposed(index))
    code, out = self.check()
    self.assertEqual(code, 0, out)
    # As a run that goes on, or an evaluation, has it.
    record = json.dumps(custom.to_record(custom.from_folder(self.root)))
    spec = custom.from_record(json.loads(record), self.root)
    packing.ensure_prepared(spec, self.data_dir)
    source = records.open_source(spec, "train", self.data_dir)
    expected = dict(zip((0, 1, 2, 255), ids, strict=True))
    for i in range(3):
      raw = miniatures.raw_label(f"train{i}", miniatures.CUSTOM_IDS)
      np.testing.assert_array_equal(
          source[i]["label"], np.vectorize(expected.get)(raw)
      )

  def test_masks_of_black_and_white(self):
    _write(self.root, {0: 0, 1: 255, 2: 0, 255: 0})
    (self.root / "classes.txt").write_text("ground\ncrack\n")
    self.assertEqual(self.proposed(), "ground = 0\ncrack = 255\n")

  def test_names_keep_their_colours(self):
    miniatures.write_custom(self.root, colors=True)
    classes = (self.root / "classes.txt").read_text()
    _write(self.root, {0: 80, 1: 160, 2: 240, 255: 255})
    (self.root / "classes.txt").write_text(classes)
    first, *lines = self.proposed().splitlines()
    self.assertEqual(first, "__ignore__ = 255")
    expected = [
        f"{name} {r} {g} {b} = {value}"
        for value, (name, (r, g, b)) in zip(
            (80, 160, 240), miniatures.CUSTOM_CLASSES.items(), strict=True
        )
    ]
    self.assertEqual(lines, expected)

  @parameterized.parameters(
      ((11, 22, 22, 22), "11 22"),
      ((0, 7, 7, 7), "0 7"),
      (((9, 8, 7), (6, 5, 4), (3, 2, 1), (1, 1, 1)), "9,8,7 6,5,4 3,2,1 1,1,1"),
  )
  def test_names_are_asked_for_where_the_order_tells_none(self, values, held):
    _write(self.root, dict(zip((0, 1, 2, 255), values, strict=True)))
    text = self.proposed()
    named = re.findall("(?m)^NAME = (.*)", text)
    self.assertCountEqual(named, held.split())
    self.assertRegex(text, r"^# \d\d\.\d% of these pixels:\nNAME = ")

  @parameterized.parameters(
      ("__ignore__ = 7\nsky = 0\nstreet lamp = 1\ncar = 2\n",),
      ("sky\nstreet lamp\ncar\n__ignore__ = 7\n",),
  )
  def test_a_single_value_may_be_ignored(self, classes):
    miniatures.write_custom(self.root)
    path = self.root / "labels/train/train3.png"
    raw = np.array(Image.open(path))
    raw[:2, :3] = 7
    Image.fromarray(raw).save(path)
    code, out = self.check()
    self.assertEqual(code, 2)
    self.assertStartsWith(out, f"fault: {path}: label value 7 (6 pixels); exp")
    self.assertIn("\nclasses.txt, if 7 is to be ignored, as the only line", out)
    self.assertIn("\n\n__ignore__ = 7\n\n", out)
    self.assertIn("as in car = 7 for a class or __ignore__ = 7, or mend", out)
    (self.root / "classes.txt").write_text(classes)
    self.assertEqual(self.check()[0], 0)

  def test_what_few_labels_tell_comes_after_their_faults(self):
    miniatures.write_custom(self.root)
    path = self.root / "labels/train/train3.png"
    raw = np.array(Image.open(path))
    raw[:2, :3] = 3
    Image.fromarray(raw).save(path)
    _, out = self.check()
    faults = re.findall("(?m)^fault: (.{60})", out)
    self.assertLen(faults, 2)
    self.assertStartsWith(faults[1], "custom: ids up to 3 are one more than")

  @parameterized.parameters(
      (False, 7, "sky = 0\nstreet lamp = 1\ncar = 2\n", "7"),
      (False, 7, "sky\nstreet lamp\ncar\n__ignore__ = 9 11-12\n", "9 11-12 7"),
      (True, (1, 2, 3), None, "0,0,0 1,2,3"),
  )
  def test_the_line_to_ignore_holds_what_was_ignored(
      self, colors, value, classes, ignored
  ):
    miniatures.write_custom(self.root, colors=colors)
    path = self.root / "classes.txt"
    classes = classes or path.read_text()
    path.write_text(classes)
    for label in self.root.glob("labels/*/*.png"):
      array = np.array(Image.open(label))
      array[:2, :3] = value
      Image.fromarray(array).save(label)
    line = self.proposed()
    self.assertEqual(line, f"__ignore__ = {ignored}\n")
    kept = [x for x in classes.splitlines() if not x.startswith("__")]
    path.write_text("\n".join([*kept, line]))
    self.assertEqual(self.check()[0], 0)

  def test_photographs_as_labels_are_no_classes(self):
    miniatures.write_custom(self.root)
    for path in self.root.glob("images/*/*.jpg"):
      label = self.root / "labels" / path.parent.name / f"{path.stem}.png"
      Image.open(path).save(label)
    code, out = self.check()
    self.assertEqual(code, 2)
    self.assertIn("custom: RGB labels of more than 64 colours, as after", out)
    self.assertNotIn("\nclasses.txt", out)


if __name__ == "__main__":
  absltest.main()
