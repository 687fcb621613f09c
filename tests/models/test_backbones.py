"""Backbones: published parameter counts, strides and dilations."""

import functools

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import networks
import numpy as np

from ctxseg_jax.models.backbones import BACKBONES
from ctxseg_jax.models.backbones import resnet

# Without the classifier. ResNets: the 7x7 stem as in torchvision; the deep
# stems differ from it by their three convolutions (and a wider first block)
# only. Rounded they are the published 23.508, 23.632, 23.527 and 42.500,
# 42.624, 42.519 M. EfficientNet: the published 5.289 M less the last 1x1
# convolution and the classifier; test_efficientnet.py has the other variants.
NUM_PARAMS = {
    # The baseline of EncNet's 2.7 M; all its networks are in test_cifar.
    ("cifar_resnet", None, None): 2_774_912,
    ("resnet", 18, "7x7"): 11_176_512,
    ("resnet", 34, "7x7"): 21_284_672,
    ("resnet", 50, "7x7"): 23_508_032,
    ("resnet", 50, "deep64"): 23_631_808,
    ("resnet", 50, "deep32"): 23_527_264,
    ("resnet", 101, "7x7"): 42_500_160,
    ("resnet", 101, "deep64"): 42_623_936,
    ("resnet", 101, "deep32"): 42_519_392,
    ("resnet", 152, "7x7"): 58_143_808,
    ("shallow", None, None): 130_464,
    # Its 14,714,688 and the convolution in the place of pool5.
    ("vgg16", None, None): 17_074_496,
    ("efficientnet", "b0", None): 3_595_388,
}

# Where the default is not the smallest.
SMALLEST = {"resnet": (18, "7x7")}


def _build(name, depth=None, stem=None, **kw):
  if name == "resnet":
    kw |= dict(depth=depth, stem=stem)
  elif name == "efficientnet":
    kw |= dict(variant=depth or "b0")
  return BACKBONES[name](**kw)


class AllBackbonesTest(parameterized.TestCase):

  def test_every_backbone_has_a_parameter_count(self):
    self.assertSameElements(BACKBONES, {name for name, *_ in NUM_PARAMS})

  @parameterized.parameters(*NUM_PARAMS)
  def test_num_params(self, name, depth, stem):
    count = networks.num_params(_build(name, depth, stem))
    self.assertEqual(count, NUM_PARAMS[name, depth, stem])

  @parameterized.parameters(*BACKBONES)
  def test_outputs_are_named_alike(self, name):
    features, _ = networks.abstract(_build(name, *SMALLEST.get(name, ())))
    stages = ["stem", "stage1", "stage2", "stage3", "stage4"]
    if name == "cifar_resnet":
      stages.remove("stage4")  # Images of 32x32 are halved twice only.
    self.assertSameElements(features, stages)

  @parameterized.parameters(*BACKBONES)
  def test_bfloat16_computes_in_it_and_keeps_float32_parameters(self, name):
    features, variables = networks.abstract(
        _build(name, *SMALLEST.get(name, ()), dtype=jnp.bfloat16)
    )
    self.assertEqual(features["stage3"].dtype, jnp.bfloat16)
    for leaf in jax.tree.leaves(variables):
      self.assertEqual(leaf.dtype, jnp.float32)


class ResNetTest(parameterized.TestCase):

  @parameterized.parameters(
      (8, (8, 8, 8)), (16, (8, 16, 16)), (32, (8, 16, 32))
  )
  def test_strides_of_the_stages(self, output_stride, expected):
    features, _ = networks.abstract(
        resnet.ResNet(depth=18, output_stride=output_stride)
    )
    strides = [64 // features[f"stage{i}"].shape[1] for i in (2, 3, 4)]
    self.assertSequenceEqual(strides, expected)

  @parameterized.parameters(
      (473, (237, 119, 60)),
      (480, (240, 120, 60)),
      (513, (257, 129, 65)),
      (769, (385, 193, 97)),
      (321, (161, 81, 41)),
  )
  def test_odd_sizes_round_up_as_in_pytorch(self, size, expected):
    features, _ = networks.abstract(resnet.ResNet(depth=18), (size, size))
    self.assertEqual(features["stem"].shape[1], expected[1])
    self.assertEqual(features["stage4"].shape[1], expected[2])

  # Dilations of stage 3 and stage 4 as listed in the codes of each variant.
  @parameterized.parameters(
      ("contracted", 8, (1, 2, 2, 2, 2, 2), (2, 4, 4)),
      ("contracted", 16, (1,) * 6, (1, 2, 2)),
      ("uniform", 8, (2,) * 6, (4, 4, 4)),
      ("multi_grid", 8, (2,) * 6, (4, 8, 16)),
      ("multi_grid", 16, (1,) * 6, (2, 4, 8)),
      ("multi_grid_contracted", 8, (1, 2, 2, 2, 2, 2), (2, 8, 16)),
      ("multi_grid_contracted", 16, (1,) * 6, (1, 4, 8)),
      ("multi_grid_stage4", 8, (1, 2, 2, 2, 2, 2), (4, 8, 16)),
      ("contracted", 32, (1,) * 6, (1, 1, 1)),
  )
  def test_dilations(self, variant, output_stride, stage3, stage4):
    plan = resnet.stage_plan(50, output_stride, variant)
    self.assertEqual(plan[2][1], stage3)
    self.assertEqual(plan[3][1], stage4)

  @parameterized.parameters(
      (dict(depth=18, dilation="multi_grid"), "needs 3 blocks"),
      (dict(depth=34, stride_in_1x1=True), "needs bottlenecks"),
  )
  def test_options_that_do_not_suit_the_depth_are_refused(self, fields, text):
    with self.assertRaisesRegex(ValueError, text):
      resnet.ResNet(**fields)

  def test_batch_statistics_change_only_in_training(self):
    backbone = resnet.ResNet(depth=18)
    variables = networks.uniform(backbone, (32, 32))
    images = networks.normal(0, 1, 32, 32, 3)

    @functools.partial(jax.jit, static_argnums=1)
    def update(variables, train):
      kw = dict(train=train, mutable=["batch_stats"])
      return backbone.apply(variables, images, **kw)[1]

    same, new = update(variables, False), update(variables, True)
    old = jax.tree.leaves(variables["batch_stats"])
    for a, b, c in zip(
        old, jax.tree.leaves(same), jax.tree.leaves(new), strict=True
    ):
      np.testing.assert_array_equal(a, b)
      self.assertFalse(np.array_equal(a, c))
