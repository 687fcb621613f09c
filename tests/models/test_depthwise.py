"""Depthwise convolutions: XLA's numbers, memory of gradients, accelerators."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import depthwise
from ctxseg_jax.models import macs

_NHWC = lax.conv_dimension_numbers(
    (1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC")
)
_SYMMETRIC = ((2, 2), (1, 1))


def _arrays(height, width, kernel_size, channels=6):
  rng = np.random.default_rng(0)
  images = rng.normal(size=(3, height, width, channels))
  kernel = rng.normal(size=(kernel_size, kernel_size, 1, channels))
  return jnp.asarray(images, jnp.float32), jnp.asarray(kernel, jnp.float32)


def _ours(
    images,
    kernel,
    stride,
    padding,
    dilation,
    convolve=depthwise.depthwise_conv,
    **kwargs,
):
  return convolve(
      images,
      kernel,
      (stride, stride),
      padding,
      rhs_dilation=(dilation, dilation),
      dimension_numbers=_NHWC,
      **kwargs,
  )


def _xla(images, kernel, **options):
  options |= dict(feature_group_count=images.shape[-1])
  return _ours(images, kernel, convolve=lax.conv_general_dilated, **options)


def _value_and_grads(convolve, images, kernel):
  def total(images, kernel):
    return jnp.sum(jnp.sin(convolve(images, kernel)))

  return jax.jit(jax.value_and_grad(total, (0, 1)))(images, kernel)


class DepthwiseConvTest(parameterized.TestCase):

  @parameterized.parameters(
      ((7, 9), 3, 1, _SYMMETRIC, 1),
      # Where the stride starts depends on whether a size is even.
      ((7, 9), 3, 2, _SYMMETRIC, 1),
      ((8, 12), 3, 2, _SYMMETRIC, 1),
      ((7, 9), 3, 2, "SAME", 1),
      ((8, 12), 5, 2, "SAME", 1),
      ((8, 12), 5, 1, "SAME", 2),
      ((7, 9), 3, 1, "VALID", 2),
  )
  def test_values_and_gradients_are_those_of_xla(
      self, size, kernel_size, stride, padding, dilation
  ):
    images, kernel = _arrays(*size, kernel_size)
    options = dict(stride=stride, padding=padding, dilation=dilation)
    found, expected = (
        _value_and_grads(functools.partial(f, **options), images, kernel)
        for f in (_ours, _xla)
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
        found,
        expected,
    )

  def test_gradients_keep_the_inputs_and_no_copy_for_each_shift(self):
    images, kernel = _arrays(16, 16, 5)
    convolve = functools.partial(_ours, stride=1, padding="SAME", dilation=1)
    _, backward = jax.vjp(convolve, images, kernel)
    kept = sum(x.size for x in jax.tree.leaves(backward))
    self.assertLessEqual(kept, images.size + 3 * kernel.size)

  @parameterized.parameters(("cpu", 0), ("tpu", 3), ("cuda", 3))
  def test_accelerators_have_the_convolution_of_xla(self, platform, count):
    images, kernel = _arrays(8, 8, 3)
    convolve = functools.partial(_ours, stride=2, padding="SAME", dilation=1)
    exported = jax.export.export(
        jax.jit(functools.partial(_value_and_grads, convolve)),
        platforms=[platform],
    )(images, kernel)
    # One forward, one for each gradient.
    text = exported.mlir_module()
    self.assertEqual(text.count("stablehlo.convolution"), count)

  def test_work_is_counted_once_and_without_a_note(self):
    convolve = functools.partial(_ours, stride=1, padding="SAME", dilation=1)
    counts, _, notes = macs.count(convolve, *_arrays(8, 8, 3))
    self.assertEqual(counts.total(), 3 * 8 * 8 * 6 * 3 * 3)
    self.assertEmpty(notes)


if __name__ == "__main__":
  absltest.main()
