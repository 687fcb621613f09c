"""Our ResNet and a whole network give the numbers of mmsegmentation.

`golden/make_mmseg.py` computed what is expected here, with mmsegmentation
1.2.2 and weights that both sides make from the parameters' names.
"""

import json
import pathlib
import re

from absl.testing import parameterized
import foreign
import jax
import mmseg_names
import networks
import numpy as np
import pytest

from ctxseg_jax import experiment
from ctxseg_jax import losses
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained import recognition
from ctxseg_jax.pretrained.sources import naming

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NUM_CLASSES = 5

MULTI_GRID = dict(stem="deep32", dilation="multi_grid_stage4")
BACKBONES = {
    "r18_d8": dict(depth=18, stem="deep32"),
    "r18_d8_uniform": dict(depth=18, stem="deep32", dilation="uniform"),
    "r18_d16_7x7": dict(depth=18, stem="7x7", output_stride=16),
    "r18_d16_deep64": dict(depth=18, stem="deep64", output_stride=16),
    "r50_d8": dict(depth=50, stem="deep32"),
    "r50_d16": dict(depth=50, stem="deep32", output_stride=16),
    "r50_d8_multi_grid": dict(depth=50, **MULTI_GRID),
    "r50_d16_multi_grid": dict(depth=50, output_stride=16, **MULTI_GRID),
    "r101_d8": dict(depth=101, stem="deep32"),
}
# Those that compile long, and whose parts are in others.
LARGE = ("r50_d16", "r50_d16_multi_grid", "r101_d8")


class Golden:
  """The arrays of one case of a golden file."""

  def __init__(self, file, case):
    self._file = np.load(GOLDEN / file)
    self._case = case

  def __getitem__(self, name):
    return self._file[f"{self._case}/{name}"]

  def shapes(self, name="tensors"):
    shapes = json.loads(str(self[name]))
    return {k: tuple(shape) for k, shape in shapes.items()}

  def under(self, prefix):
    start = f"{self._case}/{prefix}/"
    return {
        k.removeprefix(start): self._file[k]
        for k in self._file.files
        if k.startswith(start)
    }


def cases(file):
  return {k.split("/")[0] for k in np.load(GOLDEN / file).files}


def named(file, kind):
  """Returns the cases of a kind as named parameters."""
  names = {k.rpartition("/")[0] for k in np.load(GOLDEN / file).files}
  return [(x.split("/")[1], x) for x in sorted(names) if x.startswith(kind)]


def numbers(name):
  return [int(x) for x in re.findall(r"\d+", name)]


def nhwc(x):
  return np.moveaxis(x, 1, -1)


def tensors(golden):
  """Returns the state dict of mmsegmentation's module."""
  return {
      name: mmseg_names.make_tensor(name, shape)
      for name, shape in golden.shapes().items()
  }


def template(module, *args):
  return jax.eval_shape(
      lambda: module.init(jax.random.key(0), *args, train=True)
  )


def without_diagnostics(variables):
  return {k: x for k, x in variables.items() if k != "diagnostics"}


class ParityTestCase(parameterized.TestCase):

  def assert_near(self, actual, expected, *, atol=1e-4, name=""):
    """Fails unless all values agree within `atol` and could disagree."""
    self.assertEqual(actual.shape, expected.shape, name)
    self.assertGreater(np.std(expected), 100 * atol, f"{name} is too small")
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=atol, err_msg=name
    )

  def assert_relatively_near(self, actual, expected, *, rtol=1e-3, name=""):
    """Fails if the worst difference exceeds `rtol` of the largest value."""
    self.assertEqual(actual.shape, expected.shape, name)
    largest = np.abs(expected).max()
    self.assertGreater(largest, 1e-5, f"{name} is too small")
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=rtol * largest, err_msg=name
    )

  def compare_stages(self, golden, module):
    """Compares the maps and means that a golden file has of a backbone."""
    images = nhwc(mmseg_names.make_tensor("images", golden["images"]))
    tree = template(module, images)
    variables = foreign.convert(
        tensors(golden), foreign.rows(module, tree), tree
    )

    features = networks.evaluate(module, variables, images)

    for stage in ("stage1", "stage2", "stage3", "stage4"):
      maps, means = golden[f"{stage}/maps"], golden[f"{stage}/means"]
      x = np.asarray(features[stage][0])
      step = x.shape[-1] // maps.shape[0]
      self.assertGreater(np.std(maps), 0.2)
      self.assert_relatively_near(
          np.moveaxis(x[..., ::step], -1, 0), maps, rtol=1e-4, name=stage
      )
      self.assert_relatively_near(x.mean((0, 1)), means, rtol=1e-4, name=stage)


class BackboneParityTest(ParityTestCase):

  def test_every_golden_case_is_compared(self):
    self.assertSameElements(BACKBONES, cases("mmseg_backbones.npz"))

  @parameterized.parameters(*sorted(set(BACKBONES) - set(LARGE)))
  def test_stages(self, name):
    self._compare(name)

  @parameterized.parameters(*LARGE)
  @pytest.mark.slow
  def test_stages_of_large_networks(self, name):
    self._compare(name)

  def _compare(self, name):
    golden = Golden("mmseg_backbones.npz", name)
    self.compare_stages(golden, resnet.ResNet(**BACKBONES[name]))


class SegmentorParityTest(ParityTestCase):
  """ResNetV1c-18, EncHead with lateral connections, auxiliary FCNHead."""

  def _load(self, case, align_corners):
    golden = Golden("mmseg_segmentor.npz", case)
    # As a file of it is converted, but without dropout.
    text = f"model = dict(decode_head=dict(align_corners={align_corners}))"
    found = recognition.recognise(
        loading.InitFrom("mmseg", "file"),
        (tensors(golden), {"mmseg_config": text}),
    ).config["model"]
    for head in ("head", "aux_head"):
      found[head]["dropout_rate"] = 0.0
    module = experiment.build_model(found, NUM_CLASSES)
    self.assertEqual(module.align_corners, align_corners)
    images = nhwc(mmseg_names.make_tensor("images", golden["images"]))
    tree = without_diagnostics(template(module, images))
    rows = foreign.network_rows(module, tree)
    variables = foreign.convert(tensors(golden), rows, tree)
    return golden, module, images, variables, rows

  @parameterized.parameters(("half_pixel", False), ("aligned", True))
  def test_logits(self, case, align_corners):
    golden, module, images, variables, _ = self._load(case, align_corners)

    out = jax.jit(module.apply)(variables, images)

    self.assertSameElements(out, ["logits", "se_logits"])
    self.assertEqual(out["logits"].shape, (2, 65, 97, NUM_CLASSES))
    self.assert_near(out["logits"][:, ::2], nhwc(golden["logits"]))
    self.assert_near(out["se_logits"], golden["se_logits"])

  def test_training(self):
    golden, module, images, variables, rows = self._load("half_pixel", False)
    labels = golden["labels"]

    def loss_fn(params):
      out, _ = module.apply(
          {**variables, "params": params},
          images,
          train=True,
          mutable=["batch_stats"],
      )
      parts = {}
      for name, key, weight, function in (
          ("decode.loss_ce", "logits", 1.0, losses.softmax_cross_entropy),
          ("decode.loss_se", "se_logits", 0.2, losses.presence_bce),
          ("aux.loss_ce", "aux_logits", 0.4, losses.softmax_cross_entropy),
      ):
        total, count = function(out[key], labels)
        parts[name] = weight * total / count
      return sum(parts.values()), parts

    (_, parts), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        variables["params"]
    )

    for name, x in parts.items():
      np.testing.assert_allclose(x, golden[f"train/{name}"], rtol=1e-4)
    rows = {row.theirs: row for row in rows}
    for name, expected in golden.under("grad").items():
      actual = grads
      for part in rows[name].ours[1:]:
        actual = actual[part]
      expected = naming.LAYOUTS[rows[name].layout](expected, actual.shape)
      if name.startswith("backbone."):
        # Among a million rectified values some are within rounding of zero.
        # One that falls on the other side changes the gradients of its own
        # channel by several per cent, and those before it by nearly one.
        error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        self.assertLess(error, 0.05, name)
      else:
        self.assert_relatively_near(actual, expected, name=name)
