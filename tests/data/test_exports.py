"""Tests for ctxseg_jax.data.exports, on miniatures of the documented formats.

All tools export the same images, whose labels are `truth`.
"""

import base64
import contextlib
import io
import json
import pathlib
import pickle
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image
import running

from ctxseg_jax import errors
from ctxseg_jax.data import check
from ctxseg_jax.data import custom
from ctxseg_jax.data import finding
from ctxseg_jax.data import packing
from ctxseg_jax.data import polygons
from ctxseg_jax.data import records

SIZE = (12, 16)
NAMES = {"train": ["a", "b c", "d"], "val": ["e", "f"]}
EVERY = [name for names in NAMES.values() for name in names]
CAR, PERSON = 1, 2
# Left, top, right and bottom; the person is within the car.
PERSON_BOX = (6, 4, 9, 6)


def car_box(name):
  return (2 + EVERY.index(name), 2, 12, 9)


def truth(name):
  label = np.zeros(SIZE, np.uint8)
  for index, (left, top, right, bottom) in (
      (CAR, car_box(name)),
      (PERSON, PERSON_BOX),
  ):
    label[top:bottom, left:right] = index
  return label


def save_photo(name, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  miniatures.photo(name, SIZE).save(path)


def save(array, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(array, np.uint8)).save(path)


def write_cvat(root):
  palette = np.array([(0, 0, 0), (170, 240, 209), (250, 50, 83)])
  for name in EVERY:
    save_photo(name, root / f"JPEGImages/{name}.jpg")
    save(palette[truth(name)], root / f"SegmentationClass/{name}.png")
    save(palette[truth(name)], root / f"SegmentationObject/{name}.png")
  (root / "labelmap.txt").write_text(
      "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
      "car:170,240,209::\nperson:250,50,83::\n"
  )
  lists = root / "ImageSets/Segmentation"
  lists.mkdir(parents=True)
  (lists / "default.txt").write_text('a\n"b c"\nd\n')
  (lists / "Validation.txt").write_text("e\nf\n")


def write_roboflow(root):
  for split, folder in (("train", "train"), ("val", "valid")):
    for name in NAMES[split]:
      stem = f"{name}_jpg.rf.0c1d"
      save_photo(name, root / folder / f"{stem}.jpg")
      values = np.array([0, 1, 3])
      save(values[truth(name)], root / folder / f"{stem}_mask.png")
    (root / folder / "_classes.csv").write_text(
        "Pixel Value, Class\n0, background\n3, person\n1, car\n"
    )
  (root / "README.roboflow.txt").write_text("Exported.")


def shape(label, points, kind="polygon", **others):
  return dict(label=label, points=points, shape_type=kind, flags={}, **others)


def corners(left, top, right, bottom):
  return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write_labelme(root):
  for split, names in NAMES.items():
    for name in names:
      save_photo(name, root / split / f"{name}.jpg")
      # Its polygons include the pixels that they go through.
      boxes = [
          [left, top, right - 1, bottom - 1]
          for left, top, right, bottom in (car_box(name), PERSON_BOX)
      ]
      write_json(
          root / split / f"{name}.json",
          version="5.5.0",
          flags={},
          shapes=[
              shape("car", corners(*boxes[0]), group_id=None),
              shape("person", [boxes[1][:2], boxes[1][2:]], "rectangle"),
          ],
          imagePath=f"{name}.jpg",
          imageData=None,
          imageHeight=SIZE[0],
          imageWidth=SIZE[1],
      )


def write_json(path, **content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content))


def runs(box, compressed):
  """Returns run lengths of a box, as a list or as pycocotools writes them."""
  left, top, right, bottom = box
  height, width = SIZE
  inside = np.zeros(SIZE, bool)
  inside[top:bottom, left:right] = True
  flat = inside.T.ravel()
  edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
  counts = np.diff([0, *edges, height * width]).tolist()
  if compressed:
    encoded = polygons.coco_mask.encode(np.asfortranarray(inside, np.uint8))
    counts = encoded["counts"].decode()
  return dict(counts=counts, size=[height, width])


def write_instances(root):
  """Writes an export of Roboflow, whose first category is the project."""
  for split, folder in (("train", "train"), ("val", "valid")):
    images, annotations = [], []
    for i, name in enumerate(NAMES[split]):
      save_photo(name, root / folder / f"{name}.jpg")
      images.append(
          dict(id=i, file_name=f"{name}.jpg", height=SIZE[0], width=SIZE[1])
      )
      left, top, right, bottom = box = car_box(name)
      polygon = np.ravel(corners(*box)).tolist()
      car = dict(segmentation=[polygon], iscrowd=0, category_id=1)
      person = dict(
          segmentation=runs(PERSON_BOX, compressed=i % 2), category_id=2
      )
      # The larger object comes last, and yet below.
      annotations += [
          dict(image_id=i, area=6, **person),
          dict(image_id=i, area=(right - left) * (bottom - top), **car),
      ]
    write_json(
        root / folder / "_annotations.coco.json",
        images=images,
        annotations=annotations,
        categories=[
            dict(id=0, name="streets", supercategory="none"),
            dict(id=2, name="person", supercategory="streets"),
            dict(id=1, name="car", supercategory="streets"),
        ],
    )


def write_panoptic(root):
  for split, names in NAMES.items():
    images, annotations = [], []
    for i, name in enumerate(names):
      save_photo(name, root / f"images/{split}2017/{name}.jpg")
      images.append(dict(id=i, file_name=f"{name}.jpg"))
      numbers = np.array([7, 300, 70000])
      parts = numbers[truth(name)]
      rgb = np.stack([parts % 256, parts // 256 % 256, parts // 65536], -1)
      stem = f"panoptic_{split}2017"
      save(rgb, root / f"annotations/{stem}/{name}.png")
      info = [
          dict(id=int(n), category_id=c)
          for n, c in zip(numbers, (3, 5, 9), strict=True)
      ]
      annotations.append(
          dict(image_id=i, file_name=f"{name}.png", segments_info=info)
      )
    categories = {3: "background", 5: "car", 9: "person"}
    write_json(
        root / f"annotations/panoptic_{split}2017.json",
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=n) for i, n in categories.items()],
    )


WRITERS = {
    "CVAT": write_cvat,
    "Roboflow": write_roboflow,
    "LabelMe": write_labelme,
    "COCO": write_instances,
    "COCO panoptic": write_panoptic,
}


class ExportCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder, "export")

  def contents(self):
    contents = custom.open_folder(self.root)
    finding.refuse(contents.faults)
    return contents

  def check(self, *arguments):
    """Returns exit code, standard output and error of `data.check`."""
    source = f"--source={self.root}"
    return running.run(
        check, "--num_workers=0", "--dataset=custom", source, *arguments
    )

  def labels(self):
    """Returns the labels by the name of the photograph."""
    contents = self.contents()
    spec = custom.make_spec(contents.classes)
    return {
        pathlib.PurePath(pair.name).name.removesuffix("_jpg.rf.0c1d"): (
            spec.read(spec, pickle.loads(pickle.dumps(pair))).label
        )
        for pairs in contents.found.values()
        for pair in pairs
    }

  def change(self, path, change):
    content = json.loads((self.root / path).read_text())
    change(content)
    (self.root / path).write_text(json.dumps(content))

  def assert_refused(self, words, read=None):
    with self.assertRaisesRegex(errors.UserError, words) as raised:
      (read or self.labels)()
    self.assertNotIn("\n", str(raised.exception))


class EveryToolTest(ExportCase):

  @parameterized.parameters(*WRITERS)
  def test_checked_prepared_and_named(self, tool):
    WRITERS[tool](self.root)
    code, out, err = self.check()
    self.assertEqual((code, err), (0, ""))
    self.assertIn(f"{self.root}: found a {tool.split()[0]} export", out)
    self.assertRegex(out, r"\nperson .*\n\(ignored\) .*\n-+\npairs +3 +2 +5\n")

    spec = custom.from_folder(self.root)
    self.assertEqual([*spec.split_sizes.items()], [("train", 3), ("val", 2)])
    self.assertEqual(spec.class_names[1:], ("car", "person"))
    self.assertIn(spec.class_names[0], ("background", "_background_"))
    data_dir = self.root.with_name("data")
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
      packing.ensure_prepared(spec, data_dir)
    self.assertIn(f"note: {self.root}: found a ", err.getvalue())
    for split, names in NAMES.items():
      source = records.open_source(spec, split, data_dir)
      self.assertLen(source, len(names))
      for i, name in enumerate(names):
        np.testing.assert_array_equal(source[i]["label"], truth(name), name)

  @parameterized.parameters(*WRITERS)
  def test_classes_txt_picks(self, tool):
    WRITERS[tool](self.root)
    before = custom.from_folder(self.root).name
    (self.root / "classes.txt").write_text("person\ncar\n")
    for name, label in self.labels().items():
      expected = np.array([255, 1, 0])[truth(name)]
      np.testing.assert_array_equal(label, expected, name)
    self.assertRegex(self.contents().notes[-1], "leaves out _?background")
    self.assertNotEqual(custom.from_folder(self.root).name, before)
    (self.root / "classes.txt").write_text("person\ncars\n")
    self.assert_refused("class 'cars' is none of the export's; .*, car, person")

  @parameterized.parameters(*WRITERS)
  def test_classes_txt_says_nothing_of_labels(self, tool):
    WRITERS[tool](self.root)
    for lines in (
        "car = 1\nperson = 2\n",
        "car = 1,2,3 4,5,6\nperson = 7,8,9\n",
        "car 1 2 3\nperson 4 5 6\n__ignore__ 0 0 0\n",
        "__ignore__ = 7\ncar\nperson\n",
    ):
      (self.root / "classes.txt").write_text(lines)
      self.assert_refused("classes.txt: says what labels hold, by = or __ign")
    (self.root / "classes.txt").write_text("car 1 2 3\nperson 4 5 6\n")
    classes = self.contents().classes
    self.assertEqual(classes.palette, ((1, 2, 3), (4, 5, 6)))
    self.assertEmpty(custom.make_spec(classes).colors)

  @parameterized.parameters("bmp", "tiff", "webp")
  def test_images_of_other_types(self, suffix):
    write_cvat(self.root)
    for path in self.root.glob("JPEGImages/*.jpg"):
      Image.open(path).save(path.with_suffix(f".{suffix}"))
      path.unlink()
    for path in self.root.glob("SegmentationClass/*.png"):
      if suffix != "webp":
        Image.open(path).save(path.with_suffix(f".{suffix}"))
        path.unlink()
    for name, label in self.labels().items():
      np.testing.assert_array_equal(label, truth(name), name)

  @parameterized.parameters(
      ("CVAT", "SegmentationClass/a.png", "a: no|a.jpg: label is missing"),
      ("CVAT", "JPEGImages/a.jpg", "a.png: image is missing"),
      ("Roboflow", "train/a_jpg.rf.0c1d.jpg", "_mask.png: image is missing"),
      (
          "Roboflow",
          "train/a_jpg.rf.0c1d_mask.png",
          "jpg: label is missing; .*_m",
      ),
      ("LabelMe", "train/a.jpg", "train/a.json: image is missing"),
      ("COCO", "train/a.jpg", "coco.json: 'a.jpg' is not in .*train; expected"),
      (
          "COCO panoptic",
          "annotations/panoptic_train2017/a.png",
          "train2017.json: 'a.png' is not in .*panoptic_train2017; expected",
      ),
  )
  def test_a_missing_file_is_named(self, tool, path, words):
    WRITERS[tool](self.root)
    (self.root / path).unlink()
    self.assert_refused(words)

  def test_a_class_of_no_label_is_no_sign_of_shifted_ids(self):
    write_cvat(self.root)
    with open(self.root / "labelmap.txt", "a") as file:
      file.write("bus:1,2,3::\n")
    (self.root / "classes.txt").write_text("car\nperson\nbus\n")
    _, out, _ = self.check()
    self.assertIn("1 of 3 classes are not in any label: bus", out)
    self.assertNotIn("shifted", out)

  def test_our_layouts_come_first(self):
    miniatures.write_custom(self.root)
    for path in self.root.glob("images/*/*.jpg"):
      write_json(path.with_suffix(".json"), shapes=[], imagePath=path.name)
    write_json(self.root / "notes.json", images=[], annotations=[])
    contents = self.contents()
    self.assertLen(contents.found["train"], 9)
    self.assertEmpty(contents.notes)


class CvatTest(ExportCase):

  def setUp(self):
    super().setUp()
    write_cvat(self.root)

  def test_masks_of_line_numbers(self):
    for name in EVERY:
      save(truth(name), self.root / f"SegmentationClass/{name}.png")
    np.testing.assert_array_equal(self.labels()["b c"], truth("b c"))

  def test_black_is_background_without_a_line(self):
    path = self.root / "labelmap.txt"
    path.write_text(path.read_text().replace(":0,0,0:", ":0,128,0:"))
    np.testing.assert_array_equal(self.labels()["a"], truth("a"))

  def test_images_in_no_list_are_left_out_aloud(self):
    save_photo("new", self.root / "JPEGImages/new.jpg")
    self.assertRegex(self.contents().notes[-1], "1 images are in no list .*new")
    shutil.rmtree(self.root / "ImageSets")
    (self.root / "JPEGImages/new.jpg").unlink()
    self.assertLen(self.contents().found["train"], 5)

  def test_an_unknown_colour_and_value(self):
    save(np.full((*SIZE, 3), 9), self.root / "SegmentationClass/a.png")
    self.assert_refused(r"a.png: RGB label with the colour \(9, 9, 9\)")
    save(np.full(SIZE, 9), self.root / "SegmentationClass/a.png")
    self.assert_refused("a.png: label value 9 in 192 pixels; .*labelmap.txt")

  def test_nothing_is_proposed_for_classes_txt(self):
    for value in ((9, 9, 9), 9):
      for name in EVERY:
        label = np.full((*SIZE, *np.shape(value)), value)
        save(label, self.root / f"SegmentationClass/{name}.png")
      code, out, _ = self.check()
      self.assertEqual(code, 2)
      self.assertEqual(out.count("fault: "), 5)
      self.assertNotIn("classes.txt", out)

  @parameterized.parameters("car", "car:1,2::", "car:1,2,256::", ":1,2,3::")
  def test_an_odd_label_map(self, line):
    (self.root / "labelmap.txt").write_text(f"background:0,0,0::\n{line}\n")
    self.assert_refused(f"labelmap.txt:2: found '{line}'; expected a text")

  def test_an_export_without_images(self):
    shutil.rmtree(self.root / "JPEGImages")
    self.assert_refused('JPEGImages: no such folder; .*"Save images"')

  def test_one_image_in_two_lists(self):
    (self.root / "ImageSets/Segmentation/Test.txt").write_text("a\n")
    self.assert_refused("a.jpg: id a is in test and in train.*--overlapping_sp")
    code, out, _ = self.check("--overlapping_splits")
    self.assertEqual(code, 0)
    self.assertIn("1 images are in several splits", out)
    spec = custom.from_folder(self.root, overlapping_splits=True)
    data_dir = self.root.with_name("data")
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
      packing.ensure_prepared(spec, data_dir)
    self.assertIn("1 images are in several splits", err.getvalue())
    test = records.open_source(spec, "test", data_dir)
    np.testing.assert_array_equal(test[0]["label"], truth("a"))


class RoboflowTest(ExportCase):

  def test_values_are_those_of_the_split(self):
    write_roboflow(self.root)
    (self.root / "valid/_classes.csv").write_text(
        "Pixel Value, Class\n0, background\n3, car\n1, person\n"
    )
    expected = np.array([0, 2, 1])[truth("e")]
    np.testing.assert_array_equal(self.labels()["e"], expected)
    (self.root / "valid/_classes.csv").write_text("Pixel Value, Class\n0, a\n")
    self.assert_refused("mask.png: label value 1 in .*valid/_classes.csv")
    (self.root / "valid/_classes.csv").write_text("Pixel Value, Class\n0; a\n")
    self.assert_refused("_classes.csv:2: found '0; a'; expected Roboflow's")


class LabelMeTest(ExportCase):

  def setUp(self):
    super().setUp()
    write_labelme(self.root)

  def shapes(self, *shapes):
    self.change("train/a.json", lambda c: c.update(shapes=shapes))

  def test_every_shape_with_an_inside(self):
    mask = io.BytesIO()
    Image.fromarray(np.array([[1, 0], [0, 1]], bool)).save(mask, "PNG")
    mask = base64.b64encode(mask.getvalue()).decode()
    self.shapes(
        shape("car", corners(0, 0, 15, 11)),
        shape("person", [[5, 5], [5, 7]], "circle"),
        shape("__ignore__", [[15, 11], [14, 10]], "rectangle"),
        shape("person", [[12, 3], [13, 4]], "mask", mask=mask),
    )
    label = self.labels()["a"]
    self.assertEqual(label[5, 3:8].tolist(), [2] * 5)
    self.assertEqual(label[5, [2, 8]].tolist(), [1, 1])
    self.assertEqual(label[[3, 7], 5].tolist(), [2, 2])
    self.assertEqual(label[3:5, 12:14].tolist(), [[2, 1], [1, 2]])
    self.assertEqual(label[9:, 13:].tolist(), [[1] * 3, *[[1, 255, 255]] * 2])

  def test_labels_txt_gives_the_order(self):
    (self.root / "labels.txt").write_text(
        "__ignore__\n_background_\nperson\ncar\n"
    )
    expected = np.array([0, 2, 1])[truth("a")]
    np.testing.assert_array_equal(self.labels()["a"], expected)
    self.shapes(shape("bus", corners(0, 0, 5, 5)))
    self.assert_refused("a.json: shape 1 has the label 'bus'; expected one of")

  def test_images_without_json_are_left_out_aloud(self):
    save_photo("new", self.root / "train/new.jpg")
    self.assertLen(self.labels(), 5)
    self.assertRegex(self.contents().notes[-1], "1 images have no JSON.*n/new")

  @parameterized.parameters(
      (shape("car", [[1, 1], [5, 5]], "line"), "shape 1 is a line of 2 points"),
      (shape("car", [[1, 1], [5, 5]]), "shape 1 is a polygon of 2 points"),
      (shape("car", [[1, 1], 5, 5]), r"cannot be read \(TypeError"),
      (shape("car", [[1, float("nan")]] * 3), r"cannot be read \(ValueError"),
      (shape("car", [[1, 1], [2, 2]], "mask", mask="e"), "cannot be read"),
      (
          {"points": []},
          r"cannot be read \(KeyError 'label'\); expected",
      ),
  )
  def test_odd_shapes(self, odd, words):
    self.shapes(odd)
    self.assert_refused(f"train/a.json: {words}")

  def test_a_file_in_no_split_and_a_broken_one(self):
    shutil.copy(self.root / "train/a.json", self.root / "a.json")
    self.assert_refused("/a.json: in no split; .*alone, in train, val. Move")
    (self.root / "a.json").unlink()
    (self.root / "train/a.json").write_text("{")
    (fault,) = custom.open_folder(self.root).faults
    self.assertRegex(fault, r"train/a.json: cannot be read \(JSONDecodeError")


class CocoTest(ExportCase):

  def test_a_folder_of_cvat_and_coco(self):
    write_instances(self.root)
    (self.root / "annotations").mkdir()
    for folder, name in (("train", "train2017"), ("valid", "Validation")):
      (self.root / folder / "_annotations.coco.json").rename(
          self.root / f"annotations/instances_{name}.json"
      )
      (self.root / "images").mkdir(exist_ok=True)
      (self.root / folder).rename(self.root / "images" / name)
    (self.root / "annotations/captions_train2017.json").write_text("{")
    for name, label in self.labels().items():
      np.testing.assert_array_equal(label, truth(name), name)

  def test_a_folder_of_label_studio(self):
    write_instances(self.root)
    (self.root / "train/_annotations.coco.json").rename(
        self.root / "result.json"
    )
    (self.root / "train").rename(self.root / "images")
    shutil.rmtree(self.root / "valid")

    def to_path(content):
      for image in content["images"]:
        image["file_name"] = f"images\\{image['file_name']}"
      content["annotations"] = content["annotations"][2:]

    self.change("result.json", to_path)
    labels = self.labels()
    self.assertLen(labels, 3)
    self.assertFalse(labels["a"].any())
    np.testing.assert_array_equal(labels["d"], truth("d"))
    self.assertRegex(self.contents().notes[-1], "1 images have no object; all")

  def test_an_unused_category_is_a_class_unless_it_is_over_the_others(self):
    write_instances(self.root)
    person = dict(id=0, name="bus", supercategory="bus")
    for folder in ("train", "valid"):
      self.change(
          f"{folder}/_annotations.coco.json",
          lambda content: content["categories"].__setitem__(0, person),
      )
    names = ("background", "bus", "car", "person")
    self.assertEqual(self.contents().classes.names, names)

  @parameterized.parameters(
      (lambda c: [a.pop("segmentation") for a in c["annotations"]],
          "coco.json: found boxes alone; expected a segmentation"),
      (lambda c: c["annotations"][0].update(segmentation=[]),
          "coco.json, a.jpg: neither polygons nor run lengths; expected"),
      (lambda c: c["annotations"][0].update(segmentation=dict(counts="0b")),
          "coco.json, a.jpg: run lengths of .* pixels for an image of 192; "),
      (lambda c: c["annotations"][0].update(segmentation=dict(counts="~")),
          "coco.json, a.jpg: run lengths that are no text of COCO; expected"),
      (lambda c: c["annotations"][0].update(category_id=8),
          r"train/_annotations.coco.json: cannot be read \(KeyError 8\)"),
      (lambda c: c["images"].append(c["images"][0]),
          "coco.json: image a occurs twice"),
      (lambda c: c["images"][0].update(file_name="../../etc/passwd"),
          "coco.json: '../../etc/passwd' is not in .*train"),
      (lambda c: c["images"][0].update(height=10**9),
          "coco.json, a.jpg: 1000000000x16 .*expected the size"),
      (lambda c: c.update(annotations=[c["images"][0].update(height=11)][:0]),
          "coco.json: label of 11x16 for .*a.jpg of 12x16"),
  )  # fmt: skip
  def test_odd_annotations(self, change, words):
    write_instances(self.root)
    self.change("train/_annotations.coco.json", change)
    self.assert_refused(words)

  def test_two_files_of_a_split(self):
    write_panoptic(self.root)
    shutil.copy(
        self.root / "annotations/panoptic_val2017.json",
        self.root / "annotations/instances_val2017.json",
    )
    self.assert_refused("val2017.json: annotations of val, as are .*instances_")

  def test_without_the_library_a_line_says_what_to_install(self):
    write_instances(self.root)
    with mock.patch.object(polygons, "coco_mask", None):
      self.assert_refused("pycocotools is not installed.*pip install pycoco")
    write_panoptic(self.root.with_name("panoptic"))
    self.root = self.root.with_name("panoptic")
    with mock.patch.object(polygons, "coco_mask", None):
      self.assertLen(self.labels(), 5)

  def test_panoptic_pixels_of_no_segment_are_ignored(self):
    write_panoptic(self.root)
    path = self.root / "annotations/panoptic_val2017/e.png"
    rgb = np.array(Image.open(path))
    rgb[0] = 0
    save(rgb, path)
    self.assertEqual(set(self.labels()["e"][0]), {255})
    rgb[0] = (1, 1, 0)
    save(rgb, path)
    self.assert_refused("e.png: segment 257 is not in .*panoptic_val2017.json")


if __name__ == "__main__":
  absltest.main()
