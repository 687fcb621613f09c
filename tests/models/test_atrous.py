"""Atrous convolutions: of XLA's results, without work for padding."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import atrous
from ctxseg_jax.models import convolution

_NUMBERS = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _arrays(height, width, size=3):
  x, kernel = jax.random.split(jax.random.key(0))
  return (
      jax.random.normal(x, (2, height, width, 5)),
      jax.random.normal(kernel, (size, size, 5, 4)),
  )


def _options(*rates, padding=None):
  padding = padding or tuple((rate, rate) for rate in rates)
  return (1, 1), padding, dict(rhs_dilation=rates, **_NUMBERS)


class AtrousTest(chex.TestCase):

  @parameterized.named_parameters(
      ("some_taps_meet_less", (7, 9), (3, 4), None),
      ("outer_taps_meet_nothing_by_rows", (5, 40), (6, 20), None),
      ("centre_alone", (5, 6), (6, 6), None),
      ("uneven_padding", (7, 9), (4, 4), ((5, 3), (2, 6))),
      ("wide_padding", (3, 4), (3, 3), ((9, 3), (3, 9))),
  )
  def test_equals_xlas_with_gradients(self, shape, rates, padding):
    arrays = _arrays(*shape)
    *args, kwargs = _options(*rates, padding=padding)

    @functools.partial(jax.jit, static_argnums=0)
    def of(convolve):
      out, backward = jax.vjp(
          lambda x, kernel: convolve(x, kernel, *args, **kwargs), *arrays
      )
      return out, *backward(jnp.cos(out))

    for actual, expected in zip(
        of(atrous.atrous_conv),
        of(jax.lax.conv_general_dilated),
        strict=True,
    ):
      np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)

  def test_where_it_is_used(self):
    def used(size, rate, channels=512, **options):
      *args, kwargs = _options(rate, rate, **options)
      convolve = functools.partial(
          convolution.by_groups, strides=args[0], padding=args[1], **kwargs
      )
      x = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
      kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), jnp.float32)
      return "dot_general" in str(jax.make_jaxpr(convolve)(x, kernel))

    self.assertTrue(used(28, 12))  # DeepLabV3's.
    self.assertTrue(used(64, 24))
    self.assertFalse(used(28, 2))  # A dilated ResNet's.
    self.assertFalse(used(28, 1))
    self.assertFalse(used(28, 12, channels=8))
    self.assertFalse(used(28, 12, padding="SAME"))

  def test_accelerators_have_convolutions_cpus_fewer_products(self):
    *args, kwargs = _options(6, 6)
    convolve = functools.partial(
        atrous.atrous_conv, strides=args[0], padding=args[1], **kwargs
    )
    arrays = _arrays(5, 5)
    for platform in ("cpu", "tpu", "cuda"):
      text = jax.export.export(jax.jit(convolve), platforms=[platform])(
          *arrays
      ).mlir_module()
      on_cpu = platform == "cpu"
      self.assertEqual("stablehlo.convolution" in text, not on_cpu)
      # The centre of the kernel is all that meets pixels.
      self.assertEqual(text.count("stablehlo.dot_general"), int(on_cpu))

  def test_sums_in_float32(self):
    arrays = [x.astype(jnp.bfloat16) for x in _arrays(7, 7)]
    *args, kwargs = _options(3, 3)
    out = atrous.atrous_conv(*arrays, *args, **kwargs)
    expected = jax.lax.conv_general_dilated(
        *(x.astype(jnp.float32) for x in arrays), *args, **kwargs
    )
    self.assertEqual(out.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(out, expected.astype(jnp.bfloat16))


if __name__ == "__main__":
  absltest.main()
