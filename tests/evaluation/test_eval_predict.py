"""A trained run is evaluated and used by the commands, with the same result."""

import dataclasses
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from PIL import Image
import test_evaluate
import test_report
import tiny

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import records
from ctxseg_jax.data.datasets import context_scenes
from ctxseg_jax.evaluation import predictions

SPEC = context_scenes.SPEC
SIZES = {"odd": (37, 53), "dot": (1, 1), "row": (1, 90), "tall": (200, 64)}


class RunCase(parameterized.TestCase):
  """Works on a copy of the finished run."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    directory = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(directory)
    cls.workdir = tiny.copy_finished_run(cls.folder / "run")

  def run_command(self, script, *flags, **kwargs):
    result = tiny.run(script, f"--workdir={self.workdir}", *flags, **kwargs)
    self.assertEqual(result.code, 0, result.stderr)
    self.assertNotIn("Traceback", result.stderr)
    return result


class EvaluationTest(RunCase):

  def test_evaluation_repeats_that_of_the_training(self):
    path = self.workdir / "eval" / "12.json"
    in_training = json.loads(path.read_text())
    path.unlink()
    # Also with another number of devices: the integers are the same.
    result = self.run_command(
        "eval.py", "--checkpoint=last", "--report", devices=2
    )
    again = json.loads(path.read_text())
    page = test_report.Page((self.workdir / "report.html").read_text())
    self.assertIn("report.html", result.stdout)
    shown = json.loads(page.scripts[0][1])
    self.assertEqual(shown["runs"][0]["report"], again)
    self.assertLen(shown["pictures"], 12)
    for report in (in_training, again):
      for name in ("images_per_second", "compilations"):
        report.pop(name)
    self.assertEqual(again, in_training)
    self.assertContainsSubset(test_evaluate.KEYS, again)
    confusion = np.array(again["confusion_matrix"])
    self.assertEqual(confusion.sum(), 14 * context_scenes.SIZE**2)
    self.assertAlmostEqual(
        again["pixel_accuracy"], np.trace(confusion) / confusion.sum()
    )
    self.assertIn(f"mIoU {100 * again['miou']:.2f}", result.stdout)
    for name in SPEC.class_names:
      self.assertIn(name, result.stdout)

  def test_a_report_that_cannot_be_written_is_known_before_the_work(self):
    flags = ("--checkpoint=last", "--split=val[:3]")
    path = self.workdir / "eval" / "12_split-val+3+.json"
    path.mkdir()
    self.addCleanup(path.rmdir)
    result = tiny.run("eval.py", f"--workdir={self.workdir}", *flags)
    self.assertEqual(result.code, 2, result.stderr)
    self.assertLen(result.errors, 1)
    self.assertIn(f"{path}: cannot be written", result.errors[0])
    self.assertNotIn("Evaluated", result.stderr)

  def test_other_procedures_write_beside_the_plain_evaluation(self):
    before = set((self.workdir / "eval").iterdir())
    self.run_command(
        "eval.py",
        "--checkpoint=last",
        "--flip",
        "--scales=0.75,1.0",
        "--mode=slide",
        "--crop_size=96,96",
        "--stride=64,64",
    )
    (path,) = set((self.workdir / "eval").iterdir()) - before
    report = json.loads(path.read_text())
    self.assertEqual(report["num_images"], 14)
    self.assertEqual(
        np.sum(report["confusion_matrix"]), 14 * context_scenes.SIZE**2
    )
    self.assertEqual(report["procedure"], "slide 96x96, scales 0.75,1, flip")


class PredictionTest(RunCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.photos = cls.folder / "photos"
    cls.photos.mkdir()
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
      image = rng.integers(0, 256, (*size, 3), np.uint8)
      Image.fromarray(image).save(cls.photos / f"{name}.jpg")
    source = records.open_source(SPEC, "val[:14]", tiny.data_dir())
    cls.example = source[3]
    Image.fromarray(cls.example["image"]).save(cls.photos / "scene.png")

  def test_label_images_have_the_size_and_palette_of_the_data_set(self):
    output = self.folder / "out"
    self.run_command(
        "predict.py", f"--images={self.photos}", f"--output={output}"
    )
    for name, size in (SIZES | {"scene": (128, 128)}).items():
      with Image.open(output / f"{name}.png") as image:
        self.assertEqual(image.mode, "P")
        self.assertEqual(image.size[::-1], size)
        palette = np.array(image.getpalette()).reshape(-1, 3)
        labels = np.array(image)
      self.assertLess(labels.max(), SPEC.num_classes)
      np.testing.assert_array_equal(palette[: SPEC.num_classes], SPEC.palette)
      with Image.open(output / f"{name}_overlay.png") as image:
        # The legend is below it.
        self.assertGreater(image.height, size[0])
        self.assertGreaterEqual(image.width, size[1])

  def test_a_submission_has_the_ids_of_the_server(self):
    trained = experiment.load(self.workdir)
    predictor = trained.predictor()
    path = self.photos / "scene.png"
    arguments = (predictor, trained.variables, [path], self.folder / "sub")
    with self.assertRaisesRegex(errors.UserError, "--submission: context_sce"):
      predictions.write_maps(*arguments, SPEC, submission=True)
    self.assertFalse((self.folder / "sub").exists())
    ids = tuple(range(7, 7 + 2 * SPEC.num_classes, 2))
    spec = dataclasses.replace(SPEC, submission_ids=ids)
    predictions.write_maps(*arguments, spec, submission=True)
    with Image.open(self.folder / "sub" / "scene.png") as image:
      labels = np.array(image)
    with Image.open(self.folder / "sub/submission/scene.png") as image:
      self.assertEqual(image.mode, "L")
      np.testing.assert_array_equal(np.array(image), np.array(ids)[labels])

  def test_a_list_is_predicted_as_the_evaluation_does(self):
    listed = self.folder / "list.txt"
    listed.write_text("photos/scene.png\n\n")
    output = self.folder / "out_list"
    self.run_command(
        "predict.py",
        f"--images={listed}",
        f"--output={output}",
        "--checkpoint=last",
        "--probabilities",
        "--explain",
        "--point=120,7",
    )
    with Image.open(output / "scene_explain.png") as image:
      self.assertEqual(image.mode, "RGB")
    out, explained = self.expected_outputs()
    expected = np.asarray(out["logits"][0]).argmax(axis=-1)
    found = explained.arrays["se_logits"]
    np.testing.assert_allclose(found, out["se_logits"][0], rtol=1e-4)
    np.testing.assert_array_equal(explained.prediction, expected)
    self.assertGreater(len(np.unique(expected)), 1)
    with Image.open(output / "scene.png") as image:
      np.testing.assert_array_equal(np.array(image), expected)
    probabilities = np.load(output / "scene.npy")
    self.assertEqual(probabilities.dtype, np.float16)
    self.assertEqual(probabilities.shape, (128, 128, SPEC.num_classes))
    np.testing.assert_allclose(
        probabilities.sum(axis=-1, dtype=np.float32), 1.0, atol=2e-3
    )

  def test_a_point_outside_an_image_is_known_before_the_work(self):
    trained = experiment.load(self.workdir)
    paths = [self.photos / "scene.png", self.photos / "odd.jpg"]
    arguments = (trained.predictor(), trained.variables, paths)
    arguments += (self.folder / "outside", SPEC)
    with self.assertRaisesRegex(errors.UserError, "60,0 is outside .*odd.jpg"):
      predictions.write_maps(*arguments, explain=True, point="60,0")
    with self.assertRaisesRegex(errors.UserError, "--point: needs --explain"):
      predictions.write_maps(*arguments, point="60,0")
    self.assertFalse((self.folder / "outside").exists())

  def expected_outputs(self):
    """Returns what the model itself makes of the example, and explains."""
    trained = experiment.load(self.workdir, "last")
    data = trained.config["data"]
    image = self.example["image"].astype(np.float32)
    image = (image - np.array(data["mean"])) / np.array(data["std"])
    out = jax.jit(lambda v, x: trained.model.apply(v, x, train=False))(
        trained.variables, image[None].astype(np.float32)
    )
    return out, trained.explain(self.example["image"])


if __name__ == "__main__":
  absltest.main()
