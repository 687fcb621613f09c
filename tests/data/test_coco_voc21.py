"""Tests for ctxseg_jax.data.coco_voc21 and ctxseg_jax.data.polygons."""

import hashlib
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image

from ctxseg_jax import errors
from ctxseg_jax.data import polygons
from ctxseg_jax.data.datasets import coco_stuff164k
from ctxseg_jax.data.datasets import coco_voc21
from ctxseg_jax.data.datasets import voc2012

# Names of COCO's categories, of which VOC calls some otherwise.
COCO_NAMES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorbike", 5: "aeroplane",
    6: "bus", 7: "train", 9: "boat", 16: "bird", 17: "cat", 18: "dog",
    19: "horse", 20: "sheep", 21: "cow", 44: "bottle", 62: "chair",
    63: "sofa", 64: "pottedplant", 67: "diningtable", 72: "tvmonitor",
}  # fmt: skip


class PolygonsTest(parameterized.TestCase):

  def test_equals_pycocotools(self):
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    total = 0
    for i in range(200):
      height, width, corners = (
          int(rng.integers(*r)) for r in ((1, 60), (1, 60), (3, 12))
      )
      points = rng.uniform(-3, max(height, width) + 3, (corners, 2))
      if i % 2:
        points = np.round(points)
      mask = polygons.polygon_mask(points.ravel().tolist(), height, width)
      total += mask.sum()
      digest.update(np.ascontiguousarray(mask, np.uint8).tobytes())
    # Of the masks that pycocotools 2.0.11 draws of the same polygons.
    self.assertEqual(total, 30837)
    self.assertEqual(
        digest.hexdigest(),
        "804a37c0d4df1f25f18119b0eaf7423bfc9dad99c6798159825e1f065279e96c",
    )

  def test_run_lengths_go_down_the_columns(self):
    mask = polygons.object_mask({"counts": [3, 4, 5, 2, 6]}, 4, 5)
    expected = ["01010", "01010", "01000", "10000"]
    np.testing.assert_array_equal(
        mask, [[c == "1" for c in row] for row in expected]
    )

  def test_polygons_of_an_object_are_united(self):
    squares = [[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 4, 1, 4, 4, 1, 4]]
    mask = polygons.object_mask(squares, 5, 5)
    one, two = (polygons.polygon_mask(p, 5, 5) for p in squares)
    np.testing.assert_array_equal(mask, one | two)
    self.assertGreater((one & two).sum(), 0)

  @parameterized.parameters(
      ([],), (None,), ("text",), ([[1, 2, 3, 4]],), ([[0, 0, 1, 1, 2]],),
      ([[0, 0, 1, 1, float("nan"), 2]],), ([[0, 0, 1, 1, 1e9, 2]],),
      ([["a", "b", "c", "d", "e", "f"]],), ([[[0, 0], [1, 1], [2, 0]]],),
      ({"counts": "abc"},), ({},), ({"counts": [3, 4]},),
      ({"counts": [26, -1]},), ({"counts": [24.5, 0.5]},), ({"counts": []},),
  )  # fmt: skip
  def test_anything_else_is_refused(self, segmentation):
    with self.assertRaises(ValueError):
      polygons.object_mask(segmentation, 5, 5)


class CocoVoc21Test(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def find(self, any_size=True):
    return coco_voc21.find(self.root, any_size=any_size)

  def change(self, change, split="train"):
    path = self.root / "coco" / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))

  def label(self, item):
    return coco_voc21.read(coco_voc21.SPEC, item).label

  def test_categories_are_the_classes_of_voc(self):
    names = [COCO_NAMES[c] for c in coco_voc21.CATEGORIES[1:]]
    self.assertEqual(["background", *names], list(voc2012.CLASS_NAMES))

  @parameterized.parameters(False, True)
  def test_objects(self, nested):
    miniatures.write_coco_voc21(self.root, nested=nested)
    found = self.find()
    self.assertLen(found["train"], 9)  # One has too little to train on.
    self.assertLen(found["val"], 3)
    expected = np.zeros(miniatures.SIZE, np.uint8)
    for k in range(20):  # Cells of 12x12 pixels.
      y, x = k // 5 * 12, k % 5 * 12
      expected[y : y + 12, x : x + 12] = k + 1
    for item in (found["train"][3], found["val"][1]):
      np.testing.assert_array_equal(self.label(item), expected)
    self.assertFalse(self.label(found["val"][2]).any())

  def test_overlaps_are_ignored(self):
    miniatures.write_coco_voc21(self.root)

    columns = {"counts": [0, 50 * 6, 50 * 54]}  # Six.
    person = dict(image_id=9, category_id=1, segmentation=columns, area=300)
    self.change(lambda content: content["annotations"].append(person))
    label = self.label(self.find()["train"][0])
    self.assertSetEqual(set(label[:48, :6].ravel()), {255})
    # Background below the cells, which the person alone covers.
    person = voc2012.CLASS_NAMES.index("person")
    self.assertSetEqual(set(label[48:, :6].ravel()), {person})
    self.assertEqual((label == 255).sum(), 48 * 6)

  @parameterized.parameters(999, 1000, 1001)
  def test_more_than_1000_pixels_are_asked_for(self, area):
    miniatures.write_coco_voc21(self.root)

    def shrink(content):
      first = content["images"][0]["id"]
      ours = [a for a in content["annotations"] if a["image_id"] == first]
      for a in ours:
        a["area"] = 5000 if a["category_id"] == 90 else 0
      ours[-1]["area"] = area

    self.change(shrink)
    self.change(shrink, "val")
    self.assertLen(self.find()["train"], 9 if area > 1000 else 8)
    self.assertLen(self.find()["val"], 3)

  @parameterized.parameters(False, True)
  def test_maps_of_coco_stuff(self, train_ids):
    size = (150, 160)  # Of which a ninth is of VOC's classes.
    miniatures.write_coco_stuff164k(self.root, size, train_ids=train_ids)
    path, *_ = sorted(self.root.rglob("train2017/*.png"))
    Image.fromarray(np.full(size, 100, np.uint8)).save(path)
    found = self.find()
    self.assertLen(found["train"], 8)
    self.assertLen(found["val"], 2)
    spec = coco_stuff164k.SPEC
    for item in found["val"]:
      stuff = spec.read(spec, item).label
      expected = np.zeros(size, np.uint8)
      for category, name in COCO_NAMES.items():
        stuff_id = spec.label_map[category - 1]
        expected[stuff == stuff_id] = voc2012.CLASS_NAMES.index(name)
      np.testing.assert_array_equal(self.label(item), expected)

  def test_an_unused_id_of_coco_stuff_is_refused(self):
    miniatures.write_coco_stuff164k(self.root, (150, 160))
    for path in self.root.rglob("val2017/*.png"):
      Image.fromarray(np.full((150, 160), 11, np.uint8)).save(path)
    with self.assertRaisesRegex(errors.UserError, r"label value 11 \(24000"):
      self.label(self.find()["val"][0])

  def test_the_number_of_images_is_published(self):
    miniatures.write_coco_voc21(self.root)
    with self.assertRaisesRegex(
        errors.UserError,
        r"train2017.json: found 10 images of train, expected 118287",
    ):
      self.find(any_size=False)

  @parameterized.parameters(
      (lambda c: c.pop("images"), r": cannot be read \(KeyError 'images'\)"),
      (
          lambda c: c["annotations"][3].update(image_id=7, category_id=1),
          r": cannot be read \(KeyError 7\)",
      ),
      (
          lambda c: c["images"][0].update(height="tall"),
          r": cannot be read \(ValueError invalid literal",
      ),
      (
          lambda c: c["images"][0].update(height=float("inf")),
          r": cannot be read \(OverflowError",
      ),
      (lambda c: c.update(images={"a": 1}), r": cannot be read \(TypeError"),
      (
          lambda c: c["images"][0].update(file_name="../../etc/passwd"),
          r": found the name '../../etc/passwd'; expected",
      ),
      (lambda c: c["images"].append(c["images"][0]), ": found an image twice"),
      (
          lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3, 4]]),
          r", image 9: a polygon of 4 numbers; expected a seg",
      ),
  )
  def test_faults_are_named(self, change, words):
    miniatures.write_coco_voc21(self.root)
    self.change(change)
    with self.assertRaisesRegex(
        errors.UserError, f"train2017.json{words}"
    ) as raised:
      self.label(self.find()["train"][0])
    self.assertNotIn("\n", str(raised.exception))

  def test_an_image_of_another_size_is_named(self):
    miniatures.write_coco_voc21(self.root)
    self.change(lambda c: c["images"][0].update(height=51))
    with self.assertRaisesRegex(
        errors.UserError,
        r"000000009.jpg: 50x60 .height x width.; expected 51x60, of which",
    ):
      self.label(self.find()["train"][0])

  def test_missing_files(self):
    miniatures.write_coco_voc21(self.root)
    (self.root / "coco/train2017/000000000011.jpg").unlink()
    self.assertLen(self.find()["train"], 8)
    for path in (self.root / "coco/train2017").iterdir():
      path.unlink()
    with self.assertRaisesRegex(
        errors.UserError, r"train2017/000000000009.jpg: image is missing \(9 "
    ):
      self.find()
    (self.root / "coco/train2017").rmdir()
    with self.assertRaisesRegex(errors.UserError, "train2017: no such folder"):
      self.find()
    (self.root / "coco/annotations/instances_train2017.json").write_text("{")
    with self.assertRaisesRegex(errors.UserError, "read .JSONDecodeError"):
      self.find()
    (self.root / "coco").rename(self.root / "flickr")
    with self.assertRaisesRegex(
        errors.UserError, r"no known layout .it holds flickr.; expected annot"
    ):
      self.find()


if __name__ == "__main__":
  absltest.main()
