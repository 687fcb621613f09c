"""Convolutions to fewer channels: XLA's results, and its program elsewhere."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax.models import channel_reduction
from ctxseg_jax.models import convolution

_NUMBERS = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _arrays(height, width, kernel_size, dtype=jnp.float32):
  x, kernel = jax.random.split(jax.random.key(0))
  return (
      jax.random.normal(x, (2, height, width, 6), dtype),
      jax.random.normal(kernel, (*kernel_size, 6, 3), dtype),
  )


@functools.partial(jax.jit, static_argnums=0)
def _with_gradients(convolve, arrays):
  out, backward = jax.vjp(convolve, *arrays)
  return out, *backward(jnp.cos(out))


class ChannelReductionTest(parameterized.TestCase):

  @parameterized.parameters(
      ((7, 9), (3, 3), ((1, 1), (1, 1)), (1, 1)),
      ((7, 9), (3, 5), ((2, 0), (1, 3)), (1, 1)),
      ((7, 9), (3, 3), ((2, 2), (3, 3)), (2, 3)),
      ((9, 8), (3, 2), ((0, 0), (0, 0)), (3, 1)),
      ((4, 5), (3, 3), ((4, 1), (0, 5)), (1, 2)),
  )
  def test_equals_xlas_with_gradients(self, size, kernel_size, padding, rates):
    arrays = _arrays(*size, kernel_size)
    actual, expected = (
        _with_gradients(
            lambda x, kernel, of=of: of(
                x, kernel, (1, 1), padding, rhs_dilation=rates, **_NUMBERS
            ),
            arrays,
        )
        for of in (
            channel_reduction.reducing_conv,
            jax.lax.conv_general_dilated,
        )
    )
    for a, b in zip(actual, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)

  def test_kernels_gradient_is_that_of_the_images_of_all_devices(self):
    def gradient(x, kernel, axis_name=None):
      def total(kernel):
        out = channel_reduction.reducing_conv(
            x, kernel, (1, 1), ((1, 1),) * 2, rhs_dilation=(1, 1), **_NUMBERS
        )
        total = jnp.sum(jnp.sin(out))
        return jax.lax.psum(total, axis_name) if axis_name else total

      return jax.grad(total)(kernel)

    arrays = _arrays(5, 6, (3, 3))
    on_two = jax.shard_map(
        functools.partial(gradient, axis_name="data"),
        mesh=jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",)),
        in_specs=(P("data"), P()),
        out_specs=P(),
    )
    np.testing.assert_allclose(
        jax.jit(on_two)(*arrays), jax.jit(gradient)(*arrays), rtol=1e-5
    )

  def test_kernels_gradient_is_summed_in_float32(self):
    convolve = functools.partial(
        channel_reduction.reducing_conv,
        strides=(1, 1),
        padding=((1, 1), (1, 1)),
        rhs_dilation=(1, 1),
        **_NUMBERS,
    )
    arrays = _arrays(32, 32, (3, 3), jnp.bfloat16)
    out, backward = jax.vjp(convolve, *arrays)
    cotangent = jnp.cos(out)
    wide = [x.astype(jnp.float32) for x in arrays]
    _, of_wide = jax.vjp(convolve, *wide)
    kernel_gradient = of_wide(cotangent.astype(jnp.float32))[1]
    np.testing.assert_array_equal(
        backward(cotangent)[1], kernel_gradient.astype(jnp.bfloat16)
    )

  def test_where_it_is_used(self):
    def products(channels, features, size=3, rate=1, groups=1, stride=1):
      def loss(x, kernel):
        return jnp.sum(
            convolution.in_training(
                x,
                kernel,
                (stride, stride),
                ((size // 2 * rate,) * 2,) * 2,
                rhs_dilation=(rate, rate),
                feature_group_count=groups,
                **_NUMBERS,
            )
        )

      kernel = (size, size, channels // groups, features)
      shapes = [
          jax.ShapeDtypeStruct(shape, jnp.float32)
          for shape in ((2, 28, 28, channels), kernel)
      ]
      lowered = jax.jit(jax.grad(loss, 1)).lower(*shapes)
      return lowered.as_text().count("stablehlo.dot_general")

    self.assertEqual(products(2048, 512), 1)  # The reduction of an FCN.
    self.assertEqual(products(1024, 512, rate=2), 1)
    self.assertEqual(products(1024, 640), 0)
    self.assertEqual(products(512, 128), 0)
    self.assertEqual(products(2048, 512, stride=2), 0)
    self.assertEqual(products(2048, 512, groups=2), 0)

  def test_accelerators_have_xlas_gradient(self):
    def gradient(x, kernel):
      def total(kernel):
        out = channel_reduction.reducing_conv(
            x, kernel, (1, 1), ((1, 1),) * 2, rhs_dilation=(1, 1), **_NUMBERS
        )
        return jnp.sum(jnp.sin(out))

      return jax.grad(total)(kernel)

    for platform in ("cpu", "tpu", "cuda"):
      text = jax.export.export(jax.jit(gradient), platforms=[platform])(
          *_arrays(5, 5, (3, 3))
      ).mlir_module()
      on_cpu = platform == "cpu"
      self.assertEqual(text.count("stablehlo.dot_general"), int(on_cpu))
      self.assertEqual(text.count("stablehlo.convolution"), 2 - on_cpu)


if __name__ == "__main__":
  absltest.main()
