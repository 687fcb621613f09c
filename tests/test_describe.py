"""Multiply-accumulates and parameters: by hand, and as published."""

import functools
import json

from absl.testing import absltest
from absl.testing import parameterized
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest
import tiny

from ctxseg_jax import describe
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.models import attention
from ctxseg_jax.models import layers
from ctxseg_jax.models import macs
from ctxseg_jax.models import max_pooling
from ctxseg_jax.models import network
from ctxseg_jax.models import resizing
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.models.backbones import shallow
from ctxseg_jax.models.heads import HEADS


def image(size, channels=3):
  return jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)


def count_module(module, *args, **kwargs):
  variables = jax.eval_shape(
      lambda *args: module.init(jax.random.key(0), *args, **kwargs), *args
  )
  return macs.count(
      lambda *args: module.apply(*args, **kwargs), variables, *args
  )


class SmallNet(nn.Module):
  """One layer of each kind, on an input of 8x8 pixels and 4 channels."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    conv = functools.partial(nn.Conv, dtype=self.dtype)
    pad = ((1, 1), (1, 1))
    x = conv(6, (3, 3), 2, pad, feature_group_count=2, name="grouped")(x)
    x = conv(5, (3, 3), padding="VALID", name="valid")(x)
    pad = ((2, 2), (0, 0))
    x = conv(3, (3, 1), 1, pad, kernel_dilation=(2, 1), name="dilated")(x)
    x = nn.BatchNorm(use_running_average=True, dtype=self.dtype, name="bn")(x)
    x = nn.relu(x)
    x = nn.ConvTranspose(
        7, (4, 4), (2, 2), dtype=self.dtype, name="transposed"
    )(x)
    x = nn.softmax(nn.avg_pool(max_pooling.max_pool(x), (2, 2), (2, 2)))
    x = nn.Dense(9, dtype=self.dtype, name="dense")(x[:, 0])
    return jnp.einsum("bnc,bmc->bnm", x, x) + jnp.maximum(x[..., :1], 0.5)


class HandCountTest(parameterized.TestCase):

  @parameterized.parameters(jnp.float32, jnp.bfloat16)
  def test_every_kind_of_layer_by_arithmetic(self, dtype):
    counts, shape, notes = count_module(SmallNet(dtype), image((8, 8), 4))
    self.assertEqual(shape.shape, (1, 1, 1))
    self.assertEmpty(notes)
    expected = {
        # 4x4 outputs of 6 channels, each from 3x3 of 2 channels.
        (("grouped",), "conv"): 4 * 4 * 6 * 9 * 2,
        # 2x2 outputs.
        (("valid",), "conv"): 2 * 2 * 5 * 9 * 6,
        # 2x2 outputs again; most of the taps are on padding.
        (("dilated",), "conv"): 2 * 2 * 3 * 3 * 5,
        (("bn",), "batch_norm"): 2 * (2 * 2 * 3),
        ((), "relu"): 2 * 2 * 3,
        # 4x4 outputs, but 2x2 inputs that meet a kernel of 4x4 each.
        (("transposed",), "conv"): 2 * 2 * 16 * 3 * 7,
        # Of 4x4, 2x2 outputs.
        ((), "max_pool"): 9 * 2 * 2 * 7,
        # Of 1x1, one row.
        (("dense",), "matmul"): 1 * 7 * 9,
        ((), "matmul"): 1 * 1 * 9,
    }
    self.assertEqual(counts, expected)
    self.assertSequenceEqual(list(counts), list(expected))

  @parameterized.named_parameters(
      ("plain", lambda f, x: f(x), 1),
      ("jit", lambda f, x: jax.jit(f)(x), 1),
      ("twice", lambda f, x: f(x) + jax.jit(f)(x), 2),
      ("remat", lambda f, x: jax.checkpoint(f)(x), 1),
      ("custom_jvp", lambda f, x: with_rule(jax.custom_jvp, f)(x), 1),
      ("custom_vjp", lambda f, x: with_rule(jax.custom_vjp, f)(x), 1),
      ("vmap", lambda f, x: jax.vmap(f)(jnp.stack([x] * 7)), 7),
      ("map", lambda f, x: lax.map(f, jnp.stack([x] * 7)), 7),
      (
          "maps",
          lambda f, x: lax.map(lambda y: lax.map(f, y), jnp.ones((4, 3, 3, 3))),
          12,
      ),
      ("loop", lambda f, x: lax.fori_loop(0, 4, lambda i, y: f(y), x), 4),
      ("shard_map", lambda f, x: sharded(f)(jnp.stack([x] * 4)), 4),
  )
  def test_work_inside_of(self, transform, times):
    matrix = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    counts, _, notes = macs.count(
        lambda x: transform(lambda y: y @ jnp.ones((3, 3)), x), matrix
    )
    self.assertEqual(counts, {((), "matmul"): times * 27})
    self.assertEmpty(notes)

  def test_what_depends_on_values_is_said(self):
    x = jax.ShapeDtypeStruct((3, 3), jnp.float32)

    def loop(x):
      return lax.while_loop(lambda y: y.sum() < 1, lambda y: y @ x, x)

    def branch(x):
      return lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y @ y @ y, x)

    for function, work, note in (
        (loop, 27, "unknown length"),
        (branch, 54, "costliest"),
    ):
      counts, _, notes = macs.count(function, x)
      self.assertEqual(counts, {((), "matmul"): work})
      self.assertLen(notes, 1)
      self.assertIn(note, notes[0])

  @parameterized.parameters((10, 10), (5, 10), (4, 12), (3, 12))
  def test_attention_counts_its_padded_queries(self, chunk_size, executed):
    x = jax.ShapeDtypeStruct((2, 10, 4), jnp.float32)
    values = jax.ShapeDtypeStruct((2, 10, 6), jnp.float32)
    attend = functools.partial(attention.attention, chunk_size=chunk_size)
    counts, _, _ = macs.count(attend, x, x, values)
    self.assertEqual(
        counts, {((), "matmul"): 2 * executed * 10 * 4 + 2 * executed * 10 * 6}
    )

  def test_work_in_a_loop_belongs_to_the_module_around_it(self):
    head = HEADS["nonlocal"](num_classes=3, channels=8, chunk_size=20)
    features = {"stage4": image((6, 8), 16)}
    counts, _, _ = count_module(head, features, train=False)
    # 48 queries in 3 chunks of 16, widths of 4.
    self.assertEqual(counts[("non_local",), "matmul"], 2 * 48 * 48 * 4)
    self.assertEqual(counts[("non_local", "key"), "matmul"], 48 * 8 * 4)

  def test_modules_in_lifted_loops_keep_their_paths(self):
    class Steps(nn.Module):

      @nn.compact
      def __call__(self, x):
        step = nn.scan(
            lambda module, x, _: (nn.remat(nn.Dense)(3, name="d")(x), None),
            variable_broadcast="params",
            split_rngs={"params": False},
            length=5,
        )
        return step(self, x, None)[0]

    counts, _, _ = count_module(Steps(), image((2, 2)))
    self.assertEqual(counts, {(("d",), "matmul"): 5 * 4 * 9})

  def test_products_with_fixed_matrices_are_no_work(self):
    x = image((6, 8))
    for function in (
        lambda x: resizing.resize_bilinear(x, (13, 9), align_corners=True),
        lambda x: resizing.adaptive_average_pool(x, (2, 3)),
    ):
      counts, shape, _ = macs.count(function, x)
      self.assertNotEqual(shape.shape, x.shape)
      self.assertEmpty(counts)

  def test_a_module_used_twice_counts_twice(self):
    class Twice(nn.Module):

      @nn.compact
      def __call__(self, x):
        layer = layers.ConvBNAct(3, 1, name="layer")
        return layer(layer(x, train=False), train=False)

    counts, _, _ = count_module(Twice(), image((2, 2)))
    expected = {
        (("layer", "conv"), "conv"): 2 * 4 * 9,
        (("layer", "bn"), "batch_norm"): 2 * 2 * 12,
        (("layer",), "relu"): 2 * 12,
    }
    self.assertEqual(counts, expected)


def with_rule(custom, function):
  """Returns a function with a derivative of its own, which must not count."""
  function = custom(function)
  if custom is jax.custom_jvp:
    function.defjvp(lambda x, t: (function(*x), function(*t)))
  else:
    function.defvjp(lambda x: (function(x), x), lambda x, t: (t @ x,))
  return function


def sharded(function):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
  return jax.shard_map(
      lambda x: function(x[0])[None],
      mesh=mesh,
      in_specs=P("data"),
      out_specs=P("data"),
  )


@functools.cache
def backbone_counts(depth, output_stride, stem, size):
  backbone = resnet.ResNet(depth=depth, output_stride=output_stride, stem=stem)
  counts, _, _ = count_module(backbone, image((size, size)), train=False)
  return counts


def build(backbone, head, num_classes=21, **config):
  config |= dict(backbone=backbone, head=head)
  return experiment.build_model(config, num_classes)


def deep_resnet(depth=101):
  return dict(name="resnet", depth=depth, output_stride=8, stem="deep64")


def giga(number):
  return round(number / 1e9, 2)


class PublishedTest(parameterized.TestCase):
  """Figures of the literature, and of the same networks built in PyTorch."""

  @parameterized.parameters(
      (50, 8, "deep64", 512, 106.75),
      (50, 8, "deep64", 513, 109.87),
      (50, 16, "deep64", 512, 39.51),
      (50, 8, "7x7", 512, 99.67),
      (50, 16, "7x7", 513, 34.09),
      (101, 8, "deep64", 480, 162.01),
      (101, 8, "deep64", 512, 184.33),
      (101, 8, "deep64", 513, 189.89),
      (101, 8, "7x7", 512, 177.25),
      (101, 8, "deep32", 512, 178.50),
  )
  def test_convolutions_of_backbones(self, depth, stride, stem, size, expected):
    counts = backbone_counts(depth, stride, stem, size)
    convs = sum(work for (_, kind), work in counts.items() if kind == "conv")
    self.assertEqual(giga(convs), expected)

  # SANet's table has the first as its dilated FCN (162.7), EMANet's the last
  # (190.6, cut off).
  @parameterized.parameters((480, 162.67), (512, 185.08), (513, 190.66))
  def test_resnet101_with_norms_relus_and_pooling(self, size, expected):
    counts = backbone_counts(101, 8, "deep64", size)
    self.assertEqual(giga(counts.total()), expected)

  def test_deeplabv3plus_of_sanets_table(self):
    # There 59.5 M and 235.6 G, beside a backbone of 42.6 M and 162.7 G.
    model = build(deep_resnet(), dict(name="deeplabv3plus"))
    report = describe.describe(model, (480, 480))
    self.assertEqual(report["parameters"], 59_468_085)
    self.assertEqual(giga(report["macs"]), 235.57)
    self.assertEqual(report["parameters_by_part"]["backbone"], 42_623_936)
    self.assertEqual(giga(report["macs_by_part"]["backbone"]), 162.67)
    self.assertEqual(report["output_stride"], 8)

  def test_fcn(self):
    model = build(deep_resnet(), dict(name="fcn"))
    report = describe.describe(model, (480, 480))
    self.assertEqual(giga(report["macs"]), 196.69)
    self.assertEqual(giga(report["macs_by_part"]["head"]), 34.02)

  def test_deeplabv3plus_at_stride_16(self):
    model = build(
        dict(name="resnet", depth=50, output_stride=16, stem="7x7"),
        dict(name="deeplabv3plus", rates=(6, 12, 18)),
    )
    report = describe.describe(model, (513, 513))
    self.assertEqual(giga(report["conv_macs"]), 72.19)
    self.assertEqual(report["parameters"], 40_352_181)
    self.assertEqual(report["output_stride"], 16)

  def test_emanets_overhead(self):
    # Published as 43.1: its first convolution and the EM attention, without
    # the convolution behind it.
    features = {"stage4": image((65, 65), 2048)}
    counts, _, _ = count_module(
        HEADS["emanet"](num_classes=21), features, train=False
    )
    overhead = sum(
        work
        for (path, kind), work in counts.items()
        if path[:1] in (("reduce",), ("em",)) and kind in macs.PRODUCTS
    )
    self.assertEqual(giga(overhead), 43.06)
    # 3 steps of 2 products and the reconstruction; 65 * 65 pixels, 64 bases.
    self.assertEqual(counts[("em",), "matmul"], 7 * 65 * 65 * 64 * 512)
    self.assertIn((("em", "pre"), "matmul"), counts)


class FixedSizeHead(nn.Module):
  """Has a parameter for every pixel."""

  @nn.compact
  def __call__(self, features, *, train):
    x = features["stage4"]
    table = self.param("table", nn.initializers.zeros, x.shape[1:])
    return {"logits": x + table}


class TwoScales(network.SegmentationModel):

  def __call__(self, images, *, train=False):
    half = images[:, ::2, ::2]
    outputs = [
        self.head(self.backbone(x, train=train), train=train)["logits"]
        for x in (images, half)
    ]
    return {"logits": outputs[0], "half_logits": outputs[1]}


class DescribeTest(parameterized.TestCase):

  @parameterized.parameters(
      *("danet", "emanet", "encnet", "mfnet", "sanet", "sca")
  )
  def test_a_head_adds_up_whatever_the_dtype(self, name):
    self._check_sums(name)

  # All but the one without layers between features and classifier.
  @parameterized.parameters(*sorted(set(HEADS) - {"pooled"}))
  @pytest.mark.slow
  def test_every_head_adds_up_whatever_the_dtype(self, name):
    self._check_sums(name)

  def _check_sums(self, name):
    fields = {
        "mfnet": dict(map_size=(6, 8)),
        "sca": dict(host=dict(name="fcn", channels=16)),
    }.get(name, {})
    reports = [
        describe.describe(
            build(
                dict(name="shallow", channels=16),
                dict(name=name, channels=16) | fields,
                num_classes=5,
                dtype=dtype,
                aux_head=dict(name="fcn", stage="stage3", channels=8),
            ),
            (24, 32),
            depth=9,
        )
        for dtype in ("float32", "bfloat16")
    ]
    self.assertEqual(*reports)
    report = reports[0]
    self.assertEqual(report["output_stride"], 4)
    self.assertEqual(report["training_only"], ["aux_head"])
    self.assertEmpty(report["notes"])
    self.assertGreater(report["macs_by_part"]["head"], 6 * 8 * 9 * 16 * 16)
    for key in ("parameters", "macs", "conv_macs"):
      by_part = report[f"{key}_by_part"]
      self.assertSameElements(by_part, ["backbone", "head", "aux_head"])
      for part, figure in by_part.items():
        layers_ = [x for x in report["layers"] if x["name"].startswith(part)]
        self.assertEqual(sum(x[key] for x in layers_), figure)
      # What only training pays for is no part of the evaluation's sum, but
      # its parameters are there.
      left_out = 0 if key == "parameters" else by_part["aux_head"]
      self.assertEqual(report[key], sum(by_part.values()) - left_out)
    # On 6x8 positions: 3x3 and 1x1 convolutions, batch norm, ReLU.
    self.assertEqual(
        report["macs_by_part"]["aux_head"],
        48 * (9 * 16 * 8 + 2 * 8 + 8 + 8 * 5),
    )
    self.assertEqual(
        report["parameters_by_part"]["aux_head"], 9 * 16 * 8 + 16 + 8 * 5 + 5
    )
    self.assertEqual(report["macs"], sum(report["macs_by_operation"].values()))

  def test_state_is_no_parameter(self):
    model = build(dict(name="shallow"), dict(name="emanet", channels=16))
    report = describe.describe(model, (16, 16), depth=3)
    pre = [x for x in report["layers"] if x["name"] == "head/em/pre"]
    self.assertLen(pre, 1)
    self.assertEqual(pre[0]["parameters"], 0)
    self.assertEqual(pre[0]["macs"], 4 * 4 * 16 * 16)

  def test_depth_folds_layers(self):
    model = build(dict(name="shallow"), dict(name="fcn"))
    names = [
        [x["name"] for x in describe.describe(model, (8, 8), depth=n)["layers"]]
        for n in (1, 2)
    ]
    self.assertEqual(names[0], ["backbone", "head"])
    stages = ["stem", "stage1", "stage2", "stage3", "stage4"]
    expected = [f"backbone/{x}" for x in stages]
    self.assertEqual(names[1], [*expected, "head/conv1", "head/classifier"])

  def test_a_backbone_run_at_two_scales(self):
    parts = dict(
        backbone=shallow.ShallowNet(8), head=HEADS["fcn"](num_classes=5)
    )
    once = describe.describe(network.SegmentationModel(**parts), (32, 32))
    twice = describe.describe(TwoScales(**parts), (32, 32))
    self.assertEqual(4 * twice["macs"], 5 * once["macs"])
    self.assertEqual(twice["parameters"], once["parameters"])

  @parameterized.parameters(
      ((64, 64), 8), ((65, 129), 8), ((16, 16), 8), ((3, 3), None)
  )
  def test_output_stride_is_told_where_the_size_tells_it(self, size, expected):
    model = build(
        dict(name="resnet", depth=18, output_stride=8, stem="7x7"),
        dict(name="fcn"),
    )
    report = describe.describe(model, size)
    self.assertEqual(report["output_stride"], expected)

  def test_a_network_of_three_stages_and_one_class_per_image(self):
    report = describe.describe(
        build(dict(name="cifar_resnet", widen=1), dict(name="pooled"), 10),
        (32, 32),
    )
    self.assertEqual(report["output_stride"], 4)
    self.assertEqual(report["outputs"], {"logits": [10]})
    self.assertEqual(report["macs_by_part"]["head"], 64 * 10)

  def test_parameters_are_those_of_the_training_size(self):
    model = build(dict(name="shallow"), dict(name="fcn"))
    small = describe.describe(model, (32, 32), train_size=(32, 32))
    large = describe.describe(model, (64, 96), train_size=(32, 32))
    self.assertEqual(small["parameters"], large["parameters"])
    self.assertEqual(6 * small["macs"], large["macs"])

    model = network.SegmentationModel(shallow.ShallowNet(8), FixedSizeHead())
    report = describe.describe(model, (32, 32))
    self.assertEqual(report["parameters_by_part"]["head"], 8 * 8 * 8)
    with self.assertRaisesRegex(errors.UserError, "64,96") as caught:
      describe.describe(model, (64, 96), train_size=(32, 32))
    self.assertNotIn("\n", str(caught.exception))

  def test_a_network_that_cannot_be_built_is_one_line(self):
    model = build(
        dict(name="resnet", depth=18, output_stride=16, stem="7x7"),
        dict(name="encnet", channels=8, lateral=True),
    )
    with self.assertRaisesRegex(errors.UserError, "head.*output_stride to 8"):
      describe.describe(model, (32, 32))

  @parameterized.parameters(
      "", "64", "64,", "64,0", "-1,64", "64,64,3", "a,b", "64x96"
  )
  def test_sizes_that_are_none(self, text):
    message = f"^--size: expected H,W, two positive integers, got {text!r}$"
    with self.assertRaisesRegex(errors.UserError, message):
      describe.parse_size(text)

  def test_table_says_what_it_counts(self):
    model = build(
        deep_resnet(50),
        dict(name="fcn"),
        aux_head=dict(name="fcn", stage="stage3"),
    )
    text = describe.table(describe.describe(model, (64, 64)))
    self.assertIn("stage3_block6", text)
    self.assertIn("aux_head (training only)", text)
    self.assertIn("2 per element of a batch norm", " ".join(text.split()))
    self.assertLess(len(text.splitlines()), 50)
    self.assertLessEqual(max(map(len, text.splitlines())), 80)


class CommandTest(parameterized.TestCase):

  def test_json_without_a_data_set(self):
    result = tiny.run(
        "-m",
        "ctxseg_jax.describe",
        "--config=configs/quickstart.py",
        "--config.data.data_dir=/nowhere",
        "--size=64,96",
        "--json",
    )
    self.assertEqual(result.code, 0, result.stderr)
    report = json.loads(result.stdout)
    self.assertEqual(report["size"], [64, 96])
    self.assertEqual(report["outputs"]["logits"][:2], [64, 96])
    self.assertEqual(report["parameters_by_part"]["backbone"], 130_464)
    # The figures of 128x128 shrink with the pixels.
    conv_macs = 135_659_520 * 64 * 96 // 128**2
    self.assertEqual(report["conv_macs_by_part"]["backbone"], conv_macs)


if __name__ == "__main__":
  absltest.main()
