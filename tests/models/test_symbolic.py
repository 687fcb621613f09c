"""Where the size of images is left free, maps are what they are otherwise."""

import functools

from absl.testing import parameterized
import jax
import numpy as np

from ctxseg_jax.models import attention
from ctxseg_jax.models import depthwise
from ctxseg_jax.models import resizing


def twice(x, align_corners):
  size = [2 * n - 3 for n in x.shape[1:3]]
  return resizing.resize_bilinear(x, size, align_corners=align_corners)


def fixed(x, size):
  return resizing.resize_bilinear(x, size, align_corners=False)


def attend(x):
  pixels = x.reshape(len(x), -1, x.shape[-1])
  return attention.attention(pixels, pixels, pixels, chunk_size=16)


def convolve(x):
  kernel = np.arange(18, dtype=np.float32).reshape(3, 3, 1, 2) / 9
  layout = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))
  return depthwise.depthwise_conv(x, kernel, (2, 2), "SAME", **layout)


class SymbolicTest(parameterized.TestCase):

  @parameterized.parameters(
      functools.partial(twice, align_corners=False),
      functools.partial(twice, align_corners=True),
      functools.partial(fixed, size=(7, 40)),
      functools.partial(resizing.adaptive_average_pool, size=(6, 4)),
      functools.partial(resizing.pool_cells, size=4, kind="average"),
      functools.partial(resizing.pool_cells, size=4, kind="max"),
      attend,
      convolve,
  )
  def test_equals_concrete(self, function):
    shape = (1, *jax.export.symbolic_shape("h, w"), 2)
    exported = jax.export.export(jax.jit(function))(
        jax.ShapeDtypeStruct(shape, np.float32)
    )
    for h, w in ((9, 5), (6, 11)):
      x = np.random.default_rng(0).normal(size=(1, h, w, 2)).astype(np.float32)
      np.testing.assert_allclose(
          exported.call(x), function(x), atol=2e-6, rtol=1e-6
      )
