"""Tests for the published datasets of ctxseg_jax.data."""

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
import scipy.io
import tensorflow_datasets as tfds

from ctxseg_jax import errors
from ctxseg_jax.data import builder
from ctxseg_jax.data import classes
from ctxseg_jax.data import mat
from ctxseg_jax.data import packing
from ctxseg_jax.data import records
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.data.datasets import pcontext
from ctxseg_jax.data.datasets import voc2012

# Label id -> train id, as the benchmark's own table has it.
CITYSCAPES = dict(
    zip(
        (*range(7, 9), *range(11, 14), 17, *range(19, 29), *range(31, 34)),
        range(19),
        strict=True,
    )
)

# Id among the 459 categories of the release -> name.
CONTEXT = {int(entry.split()[0]): entry.split()[1] for entry in """
        2 aeroplane, 9 bag, 18 bed, 19 bedclothes, 22 bench, 23 bicycle,
        25 bird, 31 boat, 33 book, 34 bottle, 44 building, 45 bus, 46 cabinet,
        59 car, 65 cat, 68 ceiling, 72 chair, 80 cloth, 85 computer, 98 cow,
        104 cup, 105 curtain, 113 dog, 115 door, 144 fence, 158 floor,
        159 flower, 162 food, 187 grass, 189 ground, 207 horse, 220 keyboard,
        232 light, 258 motorbike, 259 mountain, 260 mouse, 284 person,
        295 plate, 296 platform, 308 pottedplant, 324 road, 326 rock,
        347 sheep, 349 shelves, 354 sidewalk, 355 sign, 360 sky, 366 snow,
        368 sofa, 397 table, 415 track, 416 train, 420 tree, 424 truck,
        427 tvmonitor, 440 wall, 445 water, 454 window, 458 wood
    """.split(",")}


def _label_by_loop(raw, train_id):
  """Maps pixel by pixel."""
  flat = [train_id(int(value)) for value in raw.ravel()]
  return np.array(flat, np.uint8).reshape(raw.shape)


class TreeCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.source = self.root / "source"
    self.data_dir = self.root / "data"

  def find(self, name, any_size=True):
    return DATASETS[name].find(self.source, any_size=any_size)

  def label(self, name, pair):
    return DATASETS[name].read(DATASETS[name], pair).label

  def prepare(self, name, any_size=True):
    return packing.prepare(
        DATASETS[name], self.data_dir, source=self.source, any_size=any_size
    )


class PrepareTest(TreeCase):

  def test_every_dataset_has_a_miniature(self):
    for name, spec in DATASETS.items():
      self.assertEqual(spec.name, name)
      needs_one = spec.needs_source and spec.task == "segmentation"
      self.assertEqual(name in miniatures.WRITERS, needs_one)

  @parameterized.parameters(
      ("ade20k", {"train": 9, "val": 2}),
      ("camvid", {"train": 9, "val": 2, "test": 3}),
      ("cityscapes", {"train": 9, "val": 2, "test": 2, "train_extra": 1}),
      ("coco_stuff164k", {"train": 9, "val": 2}),
      ("coco_voc21", {"train": 9, "val": 3}),
      ("pcontext59", {"train": 9, "val": 2}),
      ("pcontext60", {"train": 9, "val": 2}),
      ("voc2012", {"train": 9, "val": 2, "trainval": 11, "trainaug": 11}),
  )
  def test_miniature_prepares(self, name, sizes):
    miniatures.WRITERS[name](self.source)
    spec = DATASETS[name]
    items = self.find(name)
    self.assertTrue(self.prepare(name))
    self.assertSetEqual(set(items), set(spec.split_sizes))
    for split, size in sizes.items():
      source = records.open_source(spec, split, self.data_dir)
      self.assertLen(source, size)
      for i, item in enumerate(items[split]):
        example = source[i]
        self.assertEqual(example["name"], item.name)
        np.testing.assert_array_equal(
            example["label"], spec.read(spec, item).label
        )
        photo = np.array(miniatures.photo(item.name))
        if item.image.suffix == ".png":
          np.testing.assert_array_equal(example["image"], photo)
        else:  # The same up to the losses of JPEG.
          difference = example["image"].astype(int) - photo
          self.assertLess(np.abs(difference).mean(), 5)
    text = records.summary(spec, self.data_dir)
    self.assertRegex(text, rf"train +9 +{spec.num_classes}/{spec.num_classes} ")
    self.assertNotIn("without", text)

  def test_splits_of_any_size_come_in_several_files(self):
    miniatures.write_camvid(self.source)
    with mock.patch.object(builder, "_SHARD_BYTES", 20_000):
      self.prepare("camvid")
    folder = packing.dataset_dir(DATASETS["camvid"], self.data_dir)
    files = sorted(path.name for path in folder.glob("camvid-train.*"))
    self.assertGreater(len(files), 1)
    self.assertEndsWith(files[0], f"-00000-of-{len(files):05}")
    self.assertEmpty(list(folder.glob("*.part")))
    source = records.open_source(DATASETS["camvid"], "train", self.data_dir)
    names = [source[i]["name"] for i in range(9)]
    self.assertEqual(names, [f"train{i}" for i in range(9)])
    info = tfds.builder_from_directory(str(folder)).info
    self.assertEqual(sum(info.splits["train"].shard_lengths), 9)

  def test_summary_tells_what_the_source_lacks(self):
    miniatures.write_voc2012(self.source, sbd="none")
    self.prepare("voc2012")
    text = records.summary(DATASETS["voc2012"], self.data_dir)
    self.assertIn("without trainaug, which the source lacks", text)


class LabelTest(TreeCase):

  def assert_labels(self, name, pairs, raw_ids, train_id):
    """Holds labels against the raw ones, mapped id by id."""
    self.assertNotEmpty(pairs)
    for pair in pairs:
      raw = miniatures.raw_label(pair.name, raw_ids)
      expected = _label_by_loop(raw, train_id)
      np.testing.assert_array_equal(self.label(name, pair), expected)

  def test_ade20k(self):
    miniatures.write_ade20k(self.source)
    for pairs in self.find("ade20k").values():
      ids = miniatures.ADE_IDS
      self.assert_labels("ade20k", pairs, ids, lambda i: i - 1 if i else 255)

  @parameterized.parameters(
      (False, miniatures.CITYSCAPES_IDS, lambda i: CITYSCAPES.get(i, 255)),
      (True, miniatures.CITYSCAPES_TRAIN_IDS, lambda i: i),
  )
  def test_cityscapes(self, train_ids, ids, train_id):
    miniatures.write_cityscapes(self.source, train_ids=train_ids)
    found = self.find("cityscapes")
    for split in ("train", "val", "train_extra"):
      self.assert_labels("cityscapes", found[split], ids, train_id)
    label = self.label("cityscapes", found["test"][0])
    self.assertEqual(label.shape, miniatures.SIZE)
    self.assertSetEqual(set(np.unique(label)), {255})

  def test_submissions_are_what_labels_were(self):
    for name in ("ade20k", "cityscapes", "voc2012"):
      spec = DATASETS[name]
      np.testing.assert_array_equal(
          spec.label_map[np.array(spec.submission_ids)],
          np.arange(spec.num_classes),
      )

  @parameterized.parameters(
      ("cityscapes", "_gtFine_labelIds"), ("coco_stuff164k", "")
  )
  def test_labels_as_released_are_preferred(self, name, end):
    for train_ids in (False, True):
      miniatures.WRITERS[name](self.source, train_ids=train_ids)
    for pair in self.find(name)["train"]:
      self.assertEqual(pair.label.stem, pair.name + end)

  @parameterized.parameters(False, True)
  def test_coco_stuff(self, train_ids):
    miniatures.write_coco_stuff164k(self.source, train_ids=train_ids)
    spec = DATASETS["coco_stuff164k"]
    for pair in self.find(spec.name)["val"]:
      label = self.label(spec.name, pair)
      if train_ids:
        expected = miniatures.raw_label(pair.name, miniatures.COCO_TRAIN_IDS)
        np.testing.assert_array_equal(label, expected)
        continue
      raw = miniatures.raw_label(pair.name, miniatures.COCO_IDS)
      # Ids are those of COCO less one; between classes there are gaps.
      for raw_id, name in (
          (0, "person"), (10, "fire hydrant"), (12, "stop sign"),
          (24, "giraffe"), (26, "backpack"), (43, "bottle"),
          (45, "wine glass"), (66, "dining table"), (69, "toilet"),
          (89, "toothbrush"), (91, "banner"), (181, "wood"),
      ):  # fmt: skip
        train_id = spec.class_names.index(name)
        self.assertSetEqual(set(label[raw == raw_id]), {train_id})
      np.testing.assert_array_equal(label == 255, raw == 255)
    self.assertSetEqual(
        set(np.flatnonzero(spec.label_map == 255)),
        {*miniatures.COCO_UNUSED, *range(182, 256)},
    )

  @parameterized.parameters(
      ("pcontext59", lambda i: i - 1 if i else 255), ("pcontext60", int)
  )
  def test_pcontext_converted(self, name, train_id):
    miniatures.write_pcontext(self.source)
    pairs = self.find(name)["train"]
    self.assert_labels(name, pairs, miniatures.CONTEXT_IDS, train_id)

  @parameterized.product(
      name=("pcontext59", "pcontext60"), labels=("mat", "png")
  )
  def test_pcontext_as_released(self, name, labels):
    miniatures.write_pcontext(self.source, labels=labels)
    spec = DATASETS[name]
    other = {1, 3, 100, 255, 256, 300, 459, 0}
    for pair in self.find(name)["val"]:
      raw = miniatures.raw_label(pair.name, miniatures.CONTEXT_RAW_IDS)
      label = self.label(name, pair)
      for raw_id, class_name in CONTEXT.items():
        train_id = spec.class_names.index(class_name)
        self.assertSetEqual(set(label[raw == raw_id]), {train_id})
      background = 255 if name == "pcontext59" else 0
      self.assertSetEqual(set(label[np.isin(raw, [*other])]), {background})
      # A class is one raw id: none of the others reach it.
      self.assertEqual(
          np.sum(label != background),
          np.sum(np.isin(raw, pcontext.RAW_IDS[1:])),
      )

  @parameterized.parameters("converted", "mat")
  def test_voc2012(self, sbd):
    miniatures.write_voc2012(self.source, sbd=sbd)
    found = self.find("voc2012")
    voc = (*miniatures.TRAIN, *miniatures.VAL)
    names = {s: [p.name for p in pairs] for s, pairs in found.items()}
    self.assertEqual(names["train"], [*miniatures.TRAIN])
    self.assertEqual(names["trainval"], sorted(voc))
    # The list decides the order where there is one.
    trainaug = [*miniatures.AUG, *miniatures.TRAIN]
    if sbd == "mat":
      trainaug.sort()
    self.assertEqual(names["trainaug"], trainaug)
    for pairs in found.values():
      for pair in pairs:
        raw = miniatures.raw_label(pair.name, miniatures.VOC_IDS)
        if pair.name in miniatures.AUG:
          raw = miniatures.raw_label(f"sbd {pair.name}", miniatures.SBD_IDS)
        np.testing.assert_array_equal(self.label("voc2012", pair), raw)

  def test_voc2012_in_colours(self):
    miniatures.write_voc2012(self.source, sbd="none")
    pair = self.find("voc2012")["train"][0]
    raw = miniatures.raw_label(pair.name, miniatures.VOC_IDS)
    colors = np.full((256, 3), (224, 224, 192), np.uint8)
    colors[:21] = voc2012.PALETTE
    Image.fromarray(colors[raw]).save(pair.label)
    np.testing.assert_array_equal(self.label("voc2012", pair), raw)

  @parameterized.parameters(
      ("ade20k", "ADEChallengeData2016"),
      ("pcontext60", "VOCdevkit/VOC2010"),
      ("pcontext60", "VOCdevkit"),
      ("voc2012", "VOCdevkit/VOC2012"),
      ("voc2012", "VOCdevkit"),
  )
  def test_source_may_be_the_folder_itself(self, name, inside):
    miniatures.WRITERS[name](self.source)
    found = self.find(name)
    self.source = self.source / inside
    self.assertEqual(self.find(name), found)

  def test_ranges(self):
    self.assertEqual(spec_lib.ranges((9, 3, 0, 1, 2)), "0-3, 9")


class SpecTest(parameterized.TestCase):

  @parameterized.parameters(
      ("ade20k", 150, "wall", "flag", dict(train=20210, val=2000)),
      ("cityscapes", 19, "road", "bicycle",
       dict(train=2975, val=500, test=1525, train_extra=19998)),
      ("coco_stuff164k", 171, "person", "wood", dict(train=118287, val=5000)),
      ("coco_voc21", 21, "background", "tvmonitor", dict(train=None, val=5000)),
      ("pcontext59", 59, "aeroplane", "wood", dict(train=4998, val=5105)),
      ("pcontext60", 60, "background", "wood", dict(train=4998, val=5105)),
      ("voc2012", 21, "background", "tvmonitor",
       dict(train=1464, val=1449, trainval=2913, trainaug=10582)),
  )  # fmt: skip
  def test_published_facts(self, name, num_classes, first, last, sizes):
    spec = DATASETS[name]
    self.assertEqual(spec.num_classes, num_classes)
    self.assertEqual(spec.class_names[0], first)
    self.assertEqual(spec.class_names[-1], last)
    self.assertEqual(dict(spec.split_sizes), sizes)
    self.assertEqual(spec.mean, (123.675, 116.28, 103.53))

  @parameterized.parameters(
      ("ade20k", 12, "person", (150, 5, 61)),
      ("ade20k", 149, "flag", (92, 0, 255)),
      ("coco_stuff164k", 4, "airplane", (0, 64, 64)),
      ("cityscapes", 0, "road", (128, 64, 128)),
      ("cityscapes", 10, "sky", (70, 130, 180)),
      ("cityscapes", 13, "car", (0, 0, 142)),
      ("pcontext59", 5, "bicycle", (140, 140, 140)),
      ("pcontext60", 36, "mouse", (224, 255, 8)),
  )
  def test_classes_and_colours_go_together(self, name, index, title, color):
    self.assertEqual(DATASETS[name].class_names[index], title)
    self.assertEqual(DATASETS[name].palette[index], color)

  def test_voc_palette_shuffles_the_bits_of_the_id(self):
    palette = DATASETS["voc2012"].palette
    self.assertEqual([*palette], [classes.voc_color(i) for i in range(21)])
    # The bits of the id, lowest first: red, green, blue; then 64 of each.
    self.assertEqual(classes.voc_color(0b1011), (128 + 64, 128, 0))
    self.assertEqual(classes.voc_color(20), (0, 64, 128))

  def test_context_classes_are_the_ones_of_voc_and_others(self):
    names = DATASETS["pcontext60"].class_names
    self.assertEqual(names[1:], tuple(sorted(names[1:])))
    voc = set(DATASETS["voc2012"].class_names)
    self.assertSetEqual(voc - set(names), {"diningtable"})
    self.assertLen(set(pcontext.RAW_IDS), 60)
    self.assertEqual(list(pcontext.RAW_IDS), sorted(pcontext.RAW_IDS))


_ADE = "ADEChallengeData2016/annotations/training/ADE_train_00000003.png"
_ADE_IMAGE = "ADEChallengeData2016/images/training/ADE_train_00000003.jpg"
_VOC = "VOCdevkit/VOC2012"
_VOC_LABEL = f"{_VOC}/SegmentationClass/2007_000002.png"
_CONTEXT = "VOCdevkit/VOC2010/SegmentationClassContext/2007_000001.png"
_COCO = "coco_stuff164k/annotations/train2017/000000000009.png"
_CITY = "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"
_CITY_IMAGE = "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png"


def _save(array, path):
  Image.fromarray(np.asarray(array)).save(path)


def _set_pixels(path, value):
  label = np.array(Image.open(path))
  label[:2, :3] = value
  _save(label, path)


def _without(place):
  """Returns a fault that removes a file or folder of the source."""

  def fault(source):
    path = source / place
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink()

  return fault


def _value(place, value):
  """Returns a fault that sets six pixels of a label."""
  return lambda source: _set_pixels(source / place, value)


def _renamed(place, new):
  return lambda source: (source / place).rename(source / new)


def _list(*lines):
  """Returns a fault that lists the training images of CamVid."""
  return lambda source: (source / "train.txt").write_text("\n".join(lines))


def _unlisted_color(source):
  rgb = np.zeros((*miniatures.SIZE, 3), np.uint8)
  rgb[0, :4] = (1, 2, 3)
  _save(rgb, source / _VOC_LABEL)


def _already_reduced(source):
  raw = np.array(Image.open(source / _ADE))
  _save(np.where(raw == 0, 255, raw - 1).astype(np.uint8), source / _ADE)


def _train_ids_as_label_ids(source):
  raw = miniatures.raw_label("x", miniatures.CITYSCAPES_TRAIN_IDS)
  _save(raw, source / _CITY)


def _val_in_trainaug(source):
  lists = source / _VOC / "ImageSets/Segmentation"
  (lists / "trainaug.txt").write_text(f"{miniatures.VAL[0]}\n")


def _in_two_splits(source):
  for end in ("", "annot"):
    shutil.copy(source / f"train{end}/train0.png", source / f"val{end}")


# The data set, what is done to its miniature, and the words that name it.
FAULTS = {
    "ade_missing_label": ("ade20k", _without(_ADE),
        r"images/training/ADE_train_00000003.jpg: label is missing; expect"),
    "ade_missing_image": ("ade20k", _without(_ADE_IMAGE),
        r"ADE_train_00000003.png: image is missing"),
    "ade_value": ("ade20k", _value(_ADE, 151),
        r"3.png: label value 151 \(6 pixels\); expected 1-150 for the classes "
        r"and 0 for"),
    "ade_already_reduced": ("ade20k", _already_reduced,
        r"3.png: label value 255 \(\d+ pixels\).*not remapped"),
    "ade_layout": ("ade20k", _renamed("ADEChallengeData2016", "ADE20K_2021"),
        r"source: no known layout \(it holds ADE20K_2021\); expected images"),
    "voc_color": ("voc2012", _unlisted_color,
        r"2.png: RGB label with the colour \(1, 2, 3\) in 4 pixels"),
    "voc_sixteen_bits": ("voc2012",
        lambda s: _save(np.zeros((50, 60), np.uint16), s / _VOC_LABEL),
        r"2.png: label of mode I;16; expected one 8-bit channel"),
    "voc_value": ("voc2012", _value(_VOC_LABEL, 21),
        r"2.png: label value 21 \(6 pix.*0-20 for the classes and 255 for"),
    "voc_missing_image": (
        "voc2012", _without(f"{_VOC}/JPEGImages/2007_000002.jpg"),
        r"train.txt:3: .*2007_000002.png: image is missing; expected"),
    "voc_missing_label": ("voc2012", _without(_VOC_LABEL),
        r"2007_000002.jpg: label is missing"),
    "voc_missing_sbd_label": (
        "voc2012", _without(f"{_VOC}/SegmentationClassAug/2009_000001.png"),
        r"2009_000001.jpg: label is missing.*SegmentationClassAug/2009"),
    "voc_val_in_trainaug": ("voc2012", _val_in_trainaug,
        r"id 2008_000001 is in val and in trainaug"),
    "voc_no_labels": ("voc2012", _without(f"{_VOC}/SegmentationClass"),
        r"source: no known layout \(it holds VOCdevkit\); expected JPEGImages"),
    "voc_no_images": ("voc2012", _without(f"{_VOC}/JPEGImages"),
        r"JPEGImages: no such folder"),
    "voc_no_lists": ("voc2012", _without(f"{_VOC}/ImageSets"),
        r"source: no pairs in any split"),
    "coco_unused_id": ("coco_stuff164k", _value(_COCO, 25),
        r"000000000009.png: label value 25 \(6 pix.*0-10, 12-24, 26-27, "),
    "context_value": (
        "pcontext60", _value(_CONTEXT, 255),
        r"1.png: label value 255 \(6 pixels\); expected 0-59 for the classes\.",
    ),
    "camvid_value_255": ("camvid", _value("valannot/val0.png", 255),
        r"val0.png: label value 255 \(6 "),
    "camvid_missing_label": ("camvid", _without("trainannot/train3.png"),
        r"train/train3.png: label is missing"),
    "camvid_missing_image": ("camvid", _without("train/train3.png"),
        r"trainannot/train3.png: image is missing"),
    "camvid_missing_image_of_a_list": ("camvid", _list("train0", "a3"),
        r"train.txt:2: a3: image is missing"),
    "camvid_listed_twice": ("camvid", _list("train2", "train1", "train2"),
        r"train.txt:3: train2 occurs twice, first in .*train.txt:1"),
    "camvid_two_files": ("camvid",
        lambda s: shutil.copy(s / "val/val0.png", s / "val/val0.jpg"),
        r"val/val0.png: id val0 .*val0.jpg"),
    "camvid_two_splits": ("camvid", _in_two_splits,
        r"train0.png: id train0 is in val and in train"),
    "camvid_names_disagree": (
        "camvid", _list("", "train/train1.png trainannot/train2.png"),
        r"train.txt:2: found 'train/train1.png"),
    "camvid_outside_path": ("camvid", _list("../../etc/passwd"),
        r"train.txt:1: passwd: image is missing"),
    "camvid_binary_list": ("camvid",
        lambda s: (s / "train.txt").write_bytes(b"\xff\xfe\x00\x01"),
        r"train.txt: not UTF-8 text"),
    "camvid_empty_list": ("camvid", _list("", ""), r"train.txt: no lines"),
    "camvid_no_label_folder": ("camvid", _without("valannot"),
        r"valannot: no such folder"),
    "camvid_no_layout": ("camvid",
        lambda s: (shutil.rmtree(s), (s / "photos").mkdir(parents=True)),
        r"source: no known layout .it holds photos.; expected \{train"),
    "city_missing_label": ("cityscapes", _without(_CITY),
        r"ulm_000001_000019_leftImg8bit.png: label is missing; expected .*"
        r"gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"),
    "city_missing_image": ("cityscapes", _without(_CITY_IMAGE),
        r"ulm_000001_000019_gtFine_labelIds.png: image is missing"),
    "city_train_ids_under_the_wrong_name": (
        "cityscapes", _train_ids_as_label_ids,
        r"labelIds.png: label value 255 .*7-8, 11-13, 17, 19-28, 31-33 for"),
}  # fmt: skip


class FaultTest(TreeCase):

  @parameterized.named_parameters((k, *v) for k, v in FAULTS.items())
  def test_is_named_and_leaves_nothing(self, name, fault, words):
    miniatures.WRITERS[name](self.source)
    fault(self.source)
    with self.assertRaisesRegex(errors.UserError, words) as raised:
      self.prepare(name)
    self.assertNotIn("\n", str(raised.exception))
    self.assertFalse(packing.is_prepared(DATASETS[name], self.data_dir))
    left = [p.name for p in self.data_dir.rglob("*") if p.is_file()]
    self.assertIn(left, ([], [f".{name}.lock"]))

  def test_train_id_files_hold_train_ids_only(self):
    miniatures.write_cityscapes(self.source, train_ids=True)
    _set_pixels(self.source / _CITY.replace("labelIds", "labelTrainIds"), 19)
    with self.assertRaisesRegex(errors.UserError, r"19 \(6 .*0-18 .* 255 for"):
      self.prepare("cityscapes")

  @parameterized.parameters(
      ("ade20k", r"found 9 train, 2 val pairs; expected 20210 train, 2000 val. "
       r"Complete train, val, or pass --any_size"),
      ("cityscapes", r"found 9 train, 2 val, 2 test, 1 train_extra pairs; "
       r"expected 2975 train, 500 val, 1525 test, 19998 train_extra"),
      ("pcontext59", r"found 9 train, 2 val pairs; expected 4998 train, 5105 "
       r"val. Complete train, val, or pass --any_size"),
      ("voc2012", r"found 9 train, 2 val, 11 trainval, 11 trainaug pairs; "
       r"expected 1464 train, 1449 val, 2913 trainval, 10582 trainaug"),
  )  # fmt: skip
  def test_published_sizes_are_enforced(self, name, words):
    miniatures.WRITERS[name](self.source)
    with self.assertRaisesRegex(errors.UserError, words):
      self.prepare(name, any_size=False)

  def test_only_complete_splits_pass(self):
    spec = DATASETS["voc2012"]
    sizes = {"train": 1464, "val": 1449, "trainval": 2913}
    complete = {split: range(size) for split, size in sizes.items()}
    packing._check_sizes(spec, self.source, complete)
    for split in ("train", "trainaug"):  # One may lack, but not be cut.
      with self.assertRaisesRegex(errors.UserError, f"Complete {split}, or"):
        packing._check_sizes(spec, self.source, complete | {split: range(9)})
    with self.assertRaisesRegex(errors.UserError, "found 1464 train, 0 val"):
      packing._check_sizes(spec, self.source, {"train": range(1464)})
    context = {"train": range(4996), "val": range(5104)}
    packing._check_sizes(DATASETS["pcontext59"], self.source, context)
    context["train"] = range(4997)
    with self.assertRaisesRegex(errors.UserError, "Complete train, or"):
      packing._check_sizes(DATASETS["pcontext59"], self.source, context)

  def test_unreadable_folder_is_named(self):
    miniatures.write_cityscapes(self.source)
    locked = PermissionError(13, "Permission denied", str(self.source / "a"))
    with mock.patch.object(os, "scandir", side_effect=locked):
      with self.assertRaisesRegex(errors.UserError, "source/a: cannot be read"):
        self.prepare("cityscapes")

  def test_missing_list_is_named(self):
    miniatures.write_voc2012(self.source)
    lists = self.source / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "val.txt").unlink()
    with self.assertRaisesRegex(errors.UserError, "val.txt: no such file"):
      self.prepare("voc2012", any_size=False)


class MatTest(TreeCase):

  def _read(self, content, num_ids=256):
    path = self.root / "a.mat"
    scipy.io.savemat(path, content)
    return mat.read_ids(path, "GTcls", "Segmentation", num_ids=num_ids)

  def test_reads_any_kind_of_number(self):
    raw = np.arange(12).reshape(3, 4)
    for dtype in (np.uint8, np.uint16, np.int32, np.float64):
      ids = self._read({"GTcls": {"Segmentation": raw.astype(dtype)}})
      np.testing.assert_array_equal(ids, raw)
      self.assertEqual(ids.dtype, np.uint16)

  @parameterized.parameters(
      ({"GTinst": 1}, "KeyError"),
      ({"GTcls": {"Boundaries": 1}}, "Segmentation cannot be read"),
      ({"GTcls": {"Segmentation": np.zeros((2, 2, 2))}}, r"shape \(2, 2, 2\)"),
      ({"GTcls": {"Segmentation": np.full((2, 2), 0.5)}}, "whole numbers"),
      ({"GTcls": {"Segmentation": np.array([[256, 1]])}}, "holds 1 to 256"),
      ({"GTcls": {"Segmentation": np.array([[-1, 1]])}}, "holds -1 to 1"),
  )
  def test_other_content_is_refused(self, content, words):
    with self.assertRaisesRegex(errors.UserError, f"a.mat: .*{words}"):
      self._read(content)

  def test_damage_never_raises_anything_else(self):
    path = self.root / "a.mat"
    raw = np.arange(200, dtype=np.uint8).reshape(10, 20)
    rng = np.random.default_rng(0)
    for compress in (False, True):
      scipy.io.savemat(
          path, {"GTcls": {"Segmentation": raw}}, do_compression=compress
      )
      whole = path.read_bytes()
      refused = 0
      for i in range(60):
        data = bytearray(whole)
        if i % 2:
          data = data[: rng.integers(len(data))]
        else:
          data[rng.integers(128, len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
          mat.read_ids(path, "GTcls", "Segmentation", num_ids=256)
        except errors.UserError as error:
          refused += 1
          self.assertNotIn("\n", str(error))
      self.assertGreater(refused, 30)
    with self.assertRaisesRegex(errors.UserError, "b.mat: no such file"):
      mat.read_ids(self.root / "b.mat", "LabelMap", num_ids=460)


if __name__ == "__main__":
  absltest.main()
