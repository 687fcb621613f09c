"""An exported network predicts what evaluations predict, without us."""

import importlib.util
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np
import pytest
import running
import untrained

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import export_model
from ctxseg_jax.deployment import checking
from ctxseg_jax.deployment import formats
from ctxseg_jax.deployment import inference


def outputs(probabilities):
  probabilities = np.asarray(probabilities, np.float32)
  classes = probabilities.argmax(axis=-1).astype(np.uint8)
  return checking.Outputs([probabilities], [classes], 1.0)


class FolderTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)

  def make(self, *arguments, **evaluation):
    return untrained.make(self.folder / "run", *arguments, **evaluation)


class InferenceTest(FolderTest):

  @parameterized.parameters(
      # Two windows along one axis, and one that reaches over the edge.
      dict(average=True, flip=True, mode="slide", crop_size=(40, 64)),
      dict(scales=(1.0, 1.5), flip=True, short_side=32),
  )
  def test_does_what_evaluations_do(self, **options):
    trained = inference.in_float32(experiment.load(self.make(**options)))
    size = (48, 56)
    batches = checking.make_batches(size, None)
    ours = checking.run_ours(trained, batches)
    found = jax.jit(inference.make(trained))(batches[0])
    resizes = inference.resizes_images(trained.run.settings, size)
    # OpenCV rounds the weights that it resizes photographs with.
    tolerance = 0.02 if resizes else 1e-5
    np.testing.assert_allclose(
        found["probabilities"], ours.probabilities[0], atol=tolerance
    )
    self.assertGreater(len(np.unique(found["classes"])), 1)
    expected = np.asarray(found["probabilities"]).argmax(axis=-1)
    np.testing.assert_array_equal(found["classes"], expected)


class CheckTest(parameterized.TestCase):

  @parameterized.parameters(0.01, np.nan)
  def test_refuses_other_probabilities(self, error):
    ours, theirs = outputs([[0.5, 0.5]]), outputs([[0.5, 0.5 + error]])
    with self.assertRaisesRegex(errors.UserError, "model.onnx predicts other"):
      checking.compare("ONNX", theirs, ours, 1e-4)

  def test_refuses_other_classes(self):
    ours = outputs([[0.6, 0.4], [0.5, 0.50001]])
    theirs = ours._replace(classes=[np.array([0, 0], np.uint8)])  # A tie.
    self.assertLess(checking.compare("ONNX", theirs, ours, 1e-4), 1e-4)
    theirs = ours._replace(classes=[np.array([1, 1], np.uint8)])
    with self.assertRaisesRegex(errors.UserError, "by up to 0.2"):
      checking.compare("ONNX", theirs, ours, 1e-4)


class CommandTest(FolderTest):

  def run_command(self, workdir, *arguments):
    output = self.folder / "model"
    given = (f"--workdir={workdir}", f"--output={output}", *arguments)
    return output, running.run(export_model, *given)

  def test_writes_what_runs_without_us(self):
    workdir = self.make()
    refused = formats.RefusedError("jax2onnx cannot convert it: 'gather'")
    with mock.patch.object(formats, "to_onnx", side_effect=refused):
      output, (code, out, err) = self.run_command(workdir)
    self.assertEqual(code, 0, err)
    self.assertRegex(out, r"StableHLO +any +0\.\d +\d\.\de-0[678]")
    self.assertIn("ONNX is left out: jax2onnx cannot convert it", out)
    names = {path.name for path in output.iterdir()}
    self.assertEqual(names, {"README.md", "model.json", "model.stablehlo"})
    model = json.loads((output / "model.json").read_text())
    spec = experiment.load(workdir).spec
    self.assertEqual(tuple(model["class_names"]), spec.class_names)
    self.assertEqual(model["files"]["StableHLO"]["image_size"], "any")
    card = (output / "README.md").read_text()
    self.assertIn("ONNX is left out", card)
    self.assertIn("trained from random values", card)
    self.assertNotIn(str(workdir), card)
    exported = jax.export.deserialize(
        bytearray((output / "model.stablehlo").read_bytes())
    )
    self.assertEqual(exported.platforms, ("cpu", "cuda", "tpu"))
    arguments = (f"--workdir={workdir}", f"--output={output}")
    code, _, err = running.run(export_model, *arguments)
    self.assertEqual(code, 2)
    self.assertRegex(err, "^error: .*model: exists, and is not overwritten")

  def test_a_network_of_one_size_has_that(self):
    workdir = self.make(mode="slide", crop_size=(32, 32))
    function = inference.make(inference.in_float32(experiment.load(workdir)))
    exported = jax.export.deserialize(
        bytearray(formats.to_stablehlo(function, (40, 48)))
    )
    self.assertEqual(exported.in_avals[0].shape[1:], (40, 48, 3))
    _, (code, _, err) = self.run_command(workdir, "--size=40")
    self.assertEqual(code, 2)
    self.assertRegex(err, "^error: .*--size: expected a list of 2")

  @parameterized.parameters("emanet", "encnet", "pspnet")
  @pytest.mark.slow
  def test_onnx_runs_without_us(self, head):
    for package in ("jax2onnx", "onnxruntime"):
      if importlib.util.find_spec(package) is None:
        self.skipTest(f"{package} is not installed")
    workdir = self.make(head)
    output, (code, out, err) = self.run_command(workdir, "--format=ONNX")
    self.assertEqual(code, 0, err)
    self.assertRegex(out, r"ONNX +32x48 +0\.\d +\d\.\de-0[678]")
    self.assertFalse((output / "model.stablehlo").exists())
