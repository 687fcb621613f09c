"""Resizing, normalisation and the shared layers."""

import functools
import re

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import convolution
from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing


class ResizeTest(parameterized.TestCase):

  @parameterized.named_parameters(
      ("half_pixel", False, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]),
      (
          "align_corners",
          True,
          [0, 0.428571, 0.857143, 1.285714, 1.714286, 2.142857, 2.571429, 3],
      ),
  )
  def test_four_samples_to_eight(self, align_corners, expected):
    matrix = resizing.resize_matrix(8, 4, align_corners=align_corners)
    np.testing.assert_allclose(matrix @ np.arange(4), expected, atol=1e-6)

  @parameterized.product(
      align_corners=(False, True),
      sizes=((7, 13), (13, 7), (1, 5), (5, 1), (6, 6)),
  )
  def test_rows_sum_to_one(self, align_corners, sizes):
    matrix = resizing.resize_matrix(*sizes, align_corners=align_corners)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-6)
    self.assertGreaterEqual(matrix.min(), 0.0)

  def test_half_pixel_upsampling_equals_jax_image_resize(self):
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 3))
    ours = resizing.resize_bilinear(x, (20, 21), align_corners=False)
    theirs = jax.image.resize(x, (2, 20, 21, 3), "bilinear", antialias=False)
    chex.assert_trees_all_close(ours, theirs, atol=1e-5)

  def test_the_same_size_is_left_alone(self):
    x = jax.random.normal(jax.random.key(0), (1, 4, 5, 2))
    chex.assert_trees_all_equal(
        resizing.resize_bilinear(x, (4, 5), align_corners=True), x
    )

  def test_bfloat16_maps_come_out_as_float32(self):
    x = jnp.ones((1, 2, 2, 1), jnp.bfloat16)
    self.assertEqual(
        resizing.resize_bilinear(x, (4, 4), align_corners=False).dtype,
        jnp.float32,
    )


class LayersTest(chex.TestCase):

  @chex.variants(with_jit=True, without_jit=True)
  def test_normalisation_is_per_channel(self):
    images = jnp.array([[[[0, 127, 255]]]], jnp.uint8)
    out = self.variant(
        lambda x: layers.normalize_images(x, (0, 127, 5), (1, 2, 10))
    )(images)
    np.testing.assert_allclose(out[0, 0, 0], [0.0, 0.0, 25.0])

  def test_padding_is_symmetric_at_stride_two(self):
    # 'SAME' would sample 8 pixels from an offset of 1.
    layer = layers.ConvBNAct(1, stride=2, act=None)
    x = jnp.arange(64.0).reshape(1, 8, 8, 1)
    variables = layer.init(jax.random.key(0), x, train=False)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)  # Picks the centre.
    variables["params"]["conv"]["kernel"] = kernel
    out = layer.apply(variables, x, train=False)
    np.testing.assert_allclose(
        out[0, :, :, 0], x[0, ::2, ::2, 0] / np.sqrt(1 + 1e-5), rtol=1e-5
    )

  @parameterized.parameters((1, 3, 1), (2, 3, 1), (16, 3, 1), (1, 1, 1))
  def test_convolutions_are_those_of_xla(self, groups, size, padding):
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 16))
    shape = (size, size, 16 // groups, 32)
    kernel = jax.random.normal(jax.random.key(1), shape)
    args = ((2, 1), ((2 * padding, 2 * padding), (padding, padding)))
    kwargs = dict(
        rhs_dilation=(2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    np.testing.assert_allclose(
        convolution.in_training(x, kernel, *args, **kwargs),
        jax.lax.conv_general_dilated(x, kernel, *args, **kwargs),
        rtol=1e-4,
        atol=1e-4,
    )

  def test_pointwise_convolutions_are_products(self):
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 16))
    kernel = jax.random.normal(jax.random.key(1), (1, 1, 16, 32))
    numbers = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", **numbers
    )
    for multiply in (
        convolution.multiply_channels,
        convolution.multiply_pixels,
    ):
      np.testing.assert_allclose(
          multiply(x, kernel), expected, rtol=1e-4, atol=1e-4
      )
    convolve = functools.partial(
        convolution.in_training, strides=(1, 1), padding="SAME", **numbers
    )
    for platform in ("cpu", "tpu", "cuda"):
      exported = jax.export.export(jax.jit(convolve), platforms=[platform])
      text = exported(x, kernel).mlir_module()
      self.assertIn("stablehlo.dot_general", text)
      self.assertNotIn("stablehlo.convolution", text)

  def test_gradients_of_a_pointwise_convolution_move_no_axes_on_a_cpu(self):
    def gradients(x, kernel):
      out, backward = jax.vjp(convolution.multiply_pixels, x, kernel)
      return backward(out)

    arrays = jnp.ones((2, 9, 7, 16)), jnp.ones((1, 1, 16, 32))
    compiled = jax.jit(gradients).lower(*arrays).compile()
    turned = re.findall(r"(\S+) transpose\(%", compiled.as_text())
    # The kernel's alone.
    self.assertEmpty([x for x in turned if "9,7" in x or "126" in x])

  @parameterized.parameters(1, 2, 64)
  def test_convolutions_start_at_the_fan_out_of_their_group(self, groups):
    layer = layers.ConvBNAct(64, groups=groups)
    variables = layer.init(
        jax.random.key(0), jnp.ones((1, 3, 3, 64)), train=False
    )
    std = np.std(variables["params"]["conv"]["kernel"])
    np.testing.assert_allclose(std, (2 * groups / (9 * 64)) ** 0.5, rtol=0.1)

  @parameterized.named_parameters(("channels", True), ("elements", False))
  def test_dropout_drops(self, channel_dropout):
    layer = layers.Classifier(2, 0.5, channel_dropout)
    x = jnp.ones((1, 4, 4, 64))
    variables = layer.init(jax.random.key(0), x, train=False)
    variables["params"]["conv"]["kernel"] = jnp.ones((1, 1, 64, 2))
    out = layer.apply(
        variables, x, train=True, rngs={"dropout": jax.random.key(1)}
    )
    distinct = len(np.unique(np.asarray(out[..., 0])))
    # Whole channels: the same sum at every pixel.
    self.assertEqual(distinct == 1, channel_dropout)


if __name__ == "__main__":
  absltest.main()
