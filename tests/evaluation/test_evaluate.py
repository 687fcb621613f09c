"""One exact confusion matrix, whatever counts it."""

import dataclasses
import functools
import io
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import networks
import numpy as np
import rich.console

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import progress
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation import procedure
from ctxseg_jax.evaluation import segmentation
from ctxseg_jax.evaluation import tables

NUM_CLASSES = 17
KEYS = ("miou", "pixel_accuracy", "mean_accuracy", "fwiou", "iou")
KEYS += ("confusion_matrix", "num_images", "protocol")


class ListSource:
  """Examples in memory."""

  def __init__(self, sizes):
    rng = np.random.default_rng(0)
    self.examples = []
    for i, (h, w) in enumerate(sizes):
      label = rng.integers(0, NUM_CLASSES, (h, w)).astype(np.uint8)
      label[rng.uniform(size=(h, w)) < 0.2] = 255
      image = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
      self.examples.append({"image": image, "label": label, "name": f"{i}"})

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, i):
    return self.examples[i]

  def sizes(self):
    return np.array([e["label"].shape for e in self.examples])


@functools.cache
def make_network():
  model = experiment.build_model(
      dict(
          backbone=dict(name="shallow", channels=8),
          head=dict(name="encnet", channels=8, num_codewords=4),
      ),
      NUM_CLASSES,
      bn_axis_name="data",
  )
  variables = networks.uniform(model, (16, 16), kernels=0.3)
  variables.pop("diagnostics")
  return model, variables


@functools.cache
def make_predictor(num_devices=1, **fields):
  model, variables = make_network()
  predictor = segmentation.Predictor(
      model,
      jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("data",)),
      mean=(127.0,) * 3,
      std=(60.0,) * 3,
      settings=procedure.Settings(**fields),
  )
  return predictor, variables


SPEC = DATASETS["context_scenes"]
# 37 images: a number that divides over nothing, sizes that differ.
SIZES = [(16 + i % 2, 20 + i % 2) for i in range(37)]


def run(source, *, spec=SPEC, split="val", predictor=None, **kwargs):
  predictor, variables = predictor or make_predictor()
  return evaluate.evaluate(
      predictor, variables, source, spec, split=split, **kwargs
  )


class EvaluateTest(parameterized.TestCase):

  def test_integers_are_equal_on_1_and_8_devices(self):
    source = ListSource(SIZES)
    labelled = sum((e["label"] != 255).sum() for e in source.examples)
    matrices = []
    batches, padded = dict(batch_size_per_device=3), dict(max_canvases=1)
    for num_devices, fields in (
        *((1, {}), (8, {}), (8, batches)),
        *((1, padded), (8, padded)),
    ):
      report, _ = run(source, predictor=make_predictor(num_devices, **fields))
      matrix = np.array(report["confusion_matrix"])
      self.assertEqual(matrix.sum(), labelled)
      self.assertEqual(report["num_images"], 37)
      matrices.append((fields, matrix))
    for fields, matrix in matrices:
      most = fields.get("max_canvases")
      same = [m for f, m in matrices if f.get("max_canvases") == most]
      np.testing.assert_array_equal(matrix, same[0])

  def test_equals_a_plain_loop_over_the_images(self):
    source = ListSource(SIZES[:5])
    model, variables = make_network()
    network = jax.jit(model.apply)
    report, _ = run(source)
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES), int)
    by_bin = [[] for _ in range(16)]  # Confidences and whether they were right.
    for i, example in enumerate(source.examples):
      x = (example["image"][None].astype(np.float32) - 127) / 60
      logits = network(variables, x)["logits"]
      predictions = np.asarray(logits).argmax(-1).ravel()
      confidences = np.asarray(jax.nn.softmax(logits)).max(-1).ravel()
      alone = np.zeros_like(expected)
      seen = []
      for t, p, c in zip(
          example["label"].ravel(), predictions, confidences, strict=True
      ):
        if t != 255:
          alone[t, p] += 1
          by_bin[int(c * 16)].append((c, t == p))
          seen.append(c)
      expected += alone
      scores = {name: x[i] for name, x in report["images"].items()}
      self.assertEqual(scores["name"], f"{i}")
      plain = metrics.scores(alone, "detectron2")
      self.assertAlmostEqual(scores["miou"], plain["miou"], delta=1e-5)
      self.assertAlmostEqual(
          scores["accuracy"], plain["pixel_accuracy"], delta=1e-5
      )
      self.assertAlmostEqual(scores["confidence"], np.mean(seen), delta=2e-3)
    np.testing.assert_array_equal(report["confusion_matrix"], expected)
    calibration = report["calibration"]
    for i, pairs in enumerate(by_bin):
      self.assertAlmostEqual(calibration["predictions"][i], len(pairs), delta=2)
      if len(pairs) > 50:
        confidence, accuracy = np.mean(pairs, axis=0)
        self.assertAlmostEqual(
            calibration["confidence"][i], confidence, delta=2e-3
        )
        self.assertAlmostEqual(calibration["accuracy"][i], accuracy, delta=1e-2)

  def test_the_worst_and_the_best_are_returned(self):
    for num_devices in (1, 8):
      report, kept = run(
          ListSource(SIZES),
          predictor=make_predictor(num_devices),
          keep=(5,),
          num_extremes=2,
      )
      order = np.argsort(report["images"]["miou"], kind="stable")
      self.assertCountEqual(kept, {5, *order[:2], *order[-2:]})
      worst = int(order[0])
      image, label, prediction, name = kept[worst]
      self.assertEqual(name, f"{worst}")
      self.assertEqual(image.shape[:2], prediction.shape)
      accuracy = np.mean((label == prediction)[label != 255])
      self.assertAlmostEqual(
          accuracy, report["images"]["accuracy"][worst], delta=1e-5
      )

  def test_the_report_has_what_stands_beside_an_miou(self):
    report, kept = run(
        ListSource(SIZES), predictor=make_predictor(8), keep=(0, 36)
    )
    self.assertContainsSubset(KEYS, report)
    line = evaluate.summary(report | {"step": 1})
    for word in ("37 images", "protocol mmseg", "classes averaged", "39.50"):
      self.assertIn(word, line)
    self.assertSameElements(kept, (0, 36))
    image, label, prediction, name = kept[36]
    self.assertEqual(image.shape[:2], prediction.shape)
    self.assertEqual(label.shape, prediction.shape)
    self.assertEqual(name, "36")

  def test_figures_of_the_data_set_stand_in_table_and_summary(self):
    extra = ("final_score", "miou_with_background")
    spec = dataclasses.replace(SPEC, extra_figures=extra)
    report, _ = run(
        ListSource(SIZES[:2]), spec=spec, protocol="background_as_zero"
    )
    self.assertEqual(report["miou"], report["miou_with_background"])
    text = evaluate.describe(report | {"step": 1})
    for x in extra:
      title, value = metrics.EXTRA_FIGURES[x], tables.percent(report[x])
      self.assertIn(f"{title} {value}", text)
      self.assertRegex(text, rf"\n{title} +{value}")
    number = SPEC.num_classes + 1
    self.assertIn(f"over {number} of {number} classes", text)

  def test_references_are_those_of_the_split(self):
    spec = dataclasses.replace(SPEC, references={"test": {"a guess": 0.25}})
    for split, expected in (
        ("test", {"a guess": 0.25}),
        ("test[:5]", {"a guess": 0.25}),
        ("val", {}),
    ):
      report, _ = run(ListSource(SIZES[:2]), spec=spec, split=split)
      self.assertEqual(report["references"], expected)
      self.assertEqual(
          "a guess: 25.00" in evaluate.summary(report), expected != {}
      )

  def test_undefined_scores_are_shown_also_when_they_come_from_a_file(self):
    spec = dataclasses.replace(
        SPEC,
        class_names=(*SPEC.class_names, "unicorn"),
        palette=(*SPEC.palette, (1, 2, 3)),
        label_map=spec_lib.label_map({i: i for i in range(18)}, 255),
    )
    report, _ = run(ListSource(SIZES[:2]), spec=spec, protocol="torchvision")
    self.assertTrue(np.isnan(report["miou"]))
    for value in (report["miou"], None):
      read = report | {"miou": value, "step": 5}
      self.assertIn("mIoU -, pixel accuracy", evaluate.summary(read))
      self.assertIn("unicorn", evaluate.describe(read))

  def test_progress_reaches_the_number_of_images(self):
    seen = []
    run(
        ListSource(SIZES[:5]),
        predictor=make_predictor(2),
        report_progress=lambda *x: seen.append(x),
    )
    self.assertEqual(seen, sorted(seen))
    self.assertEqual(seen[-1], (5, 5))

  def test_a_label_that_is_no_class_is_named(self):
    source = ListSource(SIZES[:3])
    source.examples[1]["label"][0, 0] = 200
    with self.assertRaisesRegex(errors.UserError, "1: label 200 in 1 pixels"):
      run(source)

  def test_a_split_without_labelled_pixels_is_an_error(self):
    source = ListSource(SIZES[:3])
    for example in source.examples:
      example["label"][:] = 255
    with self.assertRaisesRegex(errors.UserError, "no labelled pixels"):
      run(source)

  def test_can_be_abandoned(self):
    self.assertIsNone(run(ListSource(SIZES), should_stop=lambda: True))


class FlagsTest(parameterized.TestCase):

  def test_flags_change_settings(self):
    flags = dict(mode="slide", flip=True, scales=["0.5", "1"], stride=None)
    flags["protocol"] = "semseg"
    self.assertEqual(
        evaluate.change(procedure.Settings(), SPEC, flags, (9, 8)),
        procedure.Settings("slide", (0.5, 1.0), flip=True, crop_size=(9, 8)),
    )

  @parameterized.parameters(
      (dict(protocol="voc"), "--protocol.*voc.*mmseg"),
      (dict(scales=["0.5", "big"]), "--scales.*0.5,big"),
      (dict(mode="slide", stride=["9", "9"]), "--stride.*gaps"),
      (dict(rotate=True), "--rotate: has no meaning for the segmentation"),
  )
  def test_bad_flags_are_named(self, flags, message):
    with self.assertRaisesRegex(errors.UserError, message):
      evaluate.change(procedure.Settings(), SPEC, flags, (9, 8))

  def test_reports_that_differ_in_anything_have_names_of_their_own(self):
    usual = dict(
        dataclasses.asdict(procedure.Settings()),
        split="val",
        protocol="mmseg",
        data_dir="/data",
    )
    slide = dict(mode="slide", crop_size=(96, 96))
    names = [
        evaluate.report_name(12, usual, usual | changes)
        for changes in (
            {},
            dict(split="test"),
            dict(protocol="semseg"),
            dict(data_dir="/data/other"),
            dict(flip=True),
            dict(scales=(0.5, 1.0)),
            dict(scales=(0.5, 10.0)),
            dict(batch_size_per_device=4),
            slide,
            slide | dict(stride=(64, 64)),
            slide | dict(stride=(32, 32)),
            slide | dict(stride=(32, 32), split="test[:5%]"),
        )
    ]
    self.assertEqual(names[0], "12")
    self.assertLen(set(names), len(names))
    for name in names[1:]:
      self.assertRegex(name, r"^12_[\w.,%+-]+$")


class ProgressTest(absltest.TestCase):

  def test_a_bar_on_a_terminal(self):
    file = io.StringIO()
    console = rich.console.Console(file=file, force_terminal=True, width=80)
    with progress.shown("evaluating", console) as report:
      self.assertEqual(file.getvalue(), "")
      report(3, 37)
    self.assertIn("3/37", file.getvalue())

  def test_a_line_now_and_then_elsewhere(self):
    now = 0.0
    with mock.patch("time.monotonic", side_effect=lambda: now):
      report = progress.log_lines("evaluating")
      with self.assertNoLogs("absl", "INFO"):
        report(1, 37)
      now = 31.0
      with self.assertLogs("absl", "INFO") as logs:
        report(2, 37)
        report(3, 37)
    self.assertLen(logs.output, 1)
    self.assertIn("evaluating: 2 of 37 images", logs.output[0])


if __name__ == "__main__":
  absltest.main()
