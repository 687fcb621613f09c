"""EfficientNet: published counts, timm's numbers, stochastic depth."""

import json
import pathlib
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import flax
import flax.linen as nn
import foreign
import jax
import jax.numpy as jnp
import mmseg_names
import networks
import numpy as np
import pytest

from ctxseg_jax.models import depthwise
from ctxseg_jax.models.backbones import efficientnet
from ctxseg_jax.models.layers import Norm

# Of the classifiers, by the authors' code, torchvision and timm alike.
PUBLISHED = {
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "b5": 30_389_784,
    "b6": 43_040_704,
    "b7": 66_347_960,
    "lite0": 4_652_008,
    "lite1": 5_416_680,
    "lite2": 6_092_072,
}

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "timm_efficientnet.npz"


def _xla_depthwise_conv(inputs, kernel, *args, **options):
  groups = inputs.shape[-1]
  return jax.lax.conv_general_dilated(
      inputs, kernel, *args, feature_group_count=groups, **options
  )


def by_xla():
  """Replaces the sums of shifts, which take long to trace and to compile.

  They are held against this in `test_depthwise`, and are in `TimmParityTest`.
  """
  return mock.patch.object(depthwise, "depthwise_conv", _xla_depthwise_conv)


@by_xla()
def _shapes(size=(64, 64), **fields):
  return networks.abstract(efficientnet.EfficientNet(**fields), size)


class CountsTest(parameterized.TestCase):

  def test_every_variant_is_published(self):
    self.assertSameElements(PUBLISHED, efficientnet.VARIANTS)

  @parameterized.parameters(*PUBLISHED)
  def test_num_params_of_published_models(self, variant):
    features, variables = _shapes(variant=variant)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    # What segmentation leaves out: a 1x1 convolution to 4 times the width of
    # stage 4 (Lite's is not scaled) with its batch norm, and a classifier of
    # 1000 classes with bias.
    width = features["stage4"].shape[-1]
    last = 1280 if efficientnet.is_lite(variant) else 4 * width
    count += width * last + 2 * last
    count += last * 1000 + 1000
    self.assertEqual(count, PUBLISHED[variant])

  @parameterized.parameters(
      ("b0", (32, 24, 40, 112, 320)),
      ("b4", (48, 32, 56, 160, 448)),
      ("b7", (64, 48, 80, 224, 640)),
  )
  def test_widths_of_the_stages(self, variant, expected):
    plan = efficientnet.group_plan(variant, 8)
    width, _ = efficientnet.VARIANTS[variant]
    widths = [efficientnet.round_channels(32, width)]
    widths += [plan[i - 1][0][0].channels for i in efficientnet.STAGE_ENDS]
    self.assertSequenceEqual(widths, expected)


class PlanTest(parameterized.TestCase):

  @parameterized.parameters(
      (8, (2, 4, 8, 8, 8)), (16, (2, 4, 8, 16, 16)), (32, (2, 4, 8, 16, 32))
  )
  def test_strides_of_the_stages(self, output_stride, expected):
    features, _ = _shapes(output_stride=output_stride)
    names = ("stem", "stage1", "stage2", "stage3", "stage4")
    strides = [64 // features[name].shape[1] for name in names]
    self.assertSequenceEqual(strides, expected)

  def test_odd_sizes_round_up_as_in_pytorch(self):
    features, _ = _shapes(size=(65, 67))
    self.assertEqual(features["stem"].shape[1:3], (33, 34))
    self.assertEqual(features["stage4"].shape[1:3], (9, 9))

  @parameterized.parameters(
      # Of groups 4 to 7: 3, 3, 4 and 1 blocks.
      (8, (1, 2, 2), (2, 2, 2), (2, 4, 4, 4), (4,)),
      (16, (1, 1, 1), (1, 1, 1), (1, 2, 2, 2), (2,)),
      (32, (1, 1, 1), (1, 1, 1), (1, 1, 1, 1), (1,)),
  )
  def test_dilations(self, output_stride, *expected):
    plan = efficientnet.group_plan("b0", output_stride)
    for group, dilations in zip(plan[3:], expected, strict=True):
      self.assertSequenceEqual([d for *_, d in group], dilations)


class TimmParityTest(absltest.TestCase):
  """`golden/make_timm.py` computed what is expected here."""

  def test_stages_at_output_stride_8(self):
    self._compare(8)

  @pytest.mark.slow
  def test_stages_at_output_stride_16(self):
    self._compare(16)

  @pytest.mark.slow
  def test_stages_at_output_stride_32(self):
    self._compare(32)

  def _compare(self, output_stride):
    golden = np.load(GOLDEN)
    case = f"b0_d{output_stride}"
    shapes = json.loads(str(golden[f"{case}/tensors"]))
    tensors = {
        name: mmseg_names.make_tensor(name, tuple(shape))
        for name, shape in shapes.items()
    }
    images = mmseg_names.make_tensor("images", tuple(golden[f"{case}/images"]))
    images = np.moveaxis(images, 1, -1)
    backbone = efficientnet.EfficientNet(output_stride=output_stride)
    _, template = _shapes(output_stride=output_stride)
    rows = foreign.rows(backbone, template, source="timm")
    variables = foreign.convert(tensors, rows, template)

    features = jax.jit(backbone.apply, static_argnames="train")(
        variables, images, train=False
    )

    for stage in ("stage1", "stage2", "stage3", "stage4"):
      maps = golden[f"{case}/{stage}/maps"]
      means = golden[f"{case}/{stage}/means"]
      x = np.moveaxis(np.asarray(features[stage][0]), -1, 0)
      self.assertGreater(np.std(maps), 0.2)
      np.testing.assert_allclose(
          x[:: x.shape[0] // 4], maps, rtol=0, atol=1e-4 * np.abs(maps).max()
      )
      np.testing.assert_allclose(
          x.mean((1, 2)), means, rtol=0, atol=1e-4 * np.abs(means).max()
      )


def _modules(backbone, kind):
  """Returns the modules of a kind that a forward pass calls."""
  found = []

  def record(next_function, args, kwargs, context):
    if isinstance(context.module, kind) and context.method_name == "__call__":
      found.append(context.module)
    return next_function(*args, **kwargs)

  with nn.intercept_methods(record), by_xla():
    networks.abstract(backbone)
  return found


class FieldsTest(absltest.TestCase):

  def test_batch_norms_are_the_published_ones_on_the_given_axis(self):
    norm = Norm(axis_name="data", momentum=0.5, epsilon=0.1, frozen=True)
    found = _modules(efficientnet.EfficientNet(norm=norm), nn.BatchNorm)
    # Of 16 blocks all but the first have three.
    self.assertLen(found, 1 + 2 + 15 * 3)
    for module in found:
      self.assertEqual(module.momentum, 0.99)
      self.assertEqual(module.epsilon, 1e-3)
      self.assertEqual(module.axis_name, "data")
      self.assertTrue(module.use_running_average)

  def test_drop_rates_rise_linearly_over_the_blocks(self):
    found = _modules(efficientnet.EfficientNet(drop_rate=0.2), nn.Dropout)
    # Blocks that begin a group have no shortcut.
    expected = [0.2 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)]
    np.testing.assert_allclose([m.rate for m in found], expected)


class MBConvTest(absltest.TestCase):

  @by_xla()
  def test_training_drops_the_branch_of_whole_images(self):
    x = jax.random.normal(jax.random.key(0), (16, 4, 4, 8))
    variables = networks.drawn(efficientnet.MBConv(8, 3), x)

    def run(drop_rate, train):
      block = efficientnet.MBConv(8, 3, drop_rate=drop_rate)
      return jax.jit(
          lambda: block.apply(
              variables,
              x,
              train=train,
              mutable=["batch_stats"],
              rngs={"dropout": jax.random.key(2)},
          )[0]
      )()

    branch = run(0.0, True) - x
    dropped = run(0.75, True)
    # Nothing, or what makes up for the images that have nothing.
    shares = np.sum((dropped - x) * branch, axis=(1, 2, 3))
    shares /= np.sum(branch * branch, axis=(1, 2, 3))
    self.assertSameElements(np.round(shares), (0, 4))
    np.testing.assert_allclose(
        dropped,
        x + np.round(shares)[:, None, None, None] * branch,
        atol=1e-4,
    )
    np.testing.assert_array_equal(run(0.75, False), run(0.0, False))

  def test_the_gate_squeezes_to_a_quarter_of_the_blocks_input(self):
    block = efficientnet.MBConv(8, 5)
    _, variables = networks.abstract(block, jnp.zeros((1, 4, 4, 24)))
    kernel = variables["params"]["se"]["squeeze"]["kernel"]
    self.assertEqual(kernel.shape, (144, 6))


# In training, what a batch norm adds to all pixels alike, the next expansion's
# batch norm takes away: only where a group ends a stage is there a use for it.
CANCELLED = ("group1_", "group4_", "group6_")


@mock.patch.dict(efficientnet.VARIANTS, b0=(0.25, 0.3))
class TinyTest(absltest.TestCase):

  @pytest.mark.slow
  @by_xla()
  def test_gradients_and_dtypes(self):
    backbone = efficientnet.EfficientNet(variant="b0", drop_rate=0.0)
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    variables = networks.drawn(backbone, x)

    def loss(params, dtype):
      features, _ = backbone.clone(dtype=dtype).apply(
          {**variables, "params": params}, x, train=True, mutable="batch_stats"
      )
      total = sum(
          jnp.sum(f * jax.random.normal(jax.random.key(2), f.shape))
          for f in features.values()
      )
      return total, features

    grads, exact = jax.jit(
        jax.grad(loss, has_aux=True), static_argnames="dtype"
    )(variables["params"], jnp.float32)
    for path, g in flax.traverse_util.flatten_dict(grads, sep="/").items():
      self.assertTrue(np.all(np.isfinite(g)), path)
      if path.endswith("project/bn/bias") and path.startswith(CANCELLED):
        self.assertLess(np.abs(g).max(), 1e-2, path)
      else:
        self.assertGreater(np.abs(g).max(), 1e-2, path)

    _, rough = jax.jit(loss, static_argnames="dtype")(
        variables["params"], jnp.bfloat16
    )
    for name, x in exact.items():
      self.assertEqual(rough[name].dtype, jnp.bfloat16)
      error = np.abs(x - rough[name].astype(jnp.float32))
      self.assertLess(np.mean(error), 0.05 * np.std(x), name)


if __name__ == "__main__":
  absltest.main()
