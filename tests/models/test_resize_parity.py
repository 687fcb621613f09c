"""Resizing, pooling and padding give the numbers of PyTorch.

`golden/make_torch_ops.py` computed what is expected.
"""

from absl.testing import parameterized
import jax.numpy as jnp
import mmseg_names
import numpy as np
import test_mmseg_parity as parity

from ctxseg_jax.models import layers
from ctxseg_jax.models import max_pooling
from ctxseg_jax.models import resizing

OPS = "torch_ops.npz"
POOLS = "torch_adaptive_pool.npz"


class ResizeParityTest(parameterized.TestCase):

  @parameterized.named_parameters(*parity.named(OPS, "resize"))
  def test_bilinear(self, name):
    h, w, *target = parity.numbers(name)
    x = mmseg_names.make_tensor(f"{name}.features", (h, w))
    golden = parity.Golden(OPS, name)
    for align_corners, key in ((False, "half_pixel"), (True, "aligned")):
      expected = golden[key]

      rows = resizing.resize_matrix(target[0], h, align_corners=align_corners)
      cols = resizing.resize_matrix(target[1], w, align_corners=align_corners)
      out = resizing.resize_bilinear(
          jnp.asarray(x)[None, ..., None], target, align_corners=align_corners
      )

      np.testing.assert_allclose(rows @ x @ cols.T, expected, atol=2e-5)
      np.testing.assert_allclose(out[0, ..., 0], expected, atol=2e-5)

  @parameterized.named_parameters(*parity.named(OPS, "pool"))
  def test_max_pool_of_negative_values(self, name):
    x = mmseg_names.make_tensor(
        f"{name}.features", (1, 2, *parity.numbers(name))
    )
    x = jnp.asarray(parity.nhwc(x - 3.0))

    out = max_pooling.max_pool(x)

    self.assertLess(out.max(), -1.0)
    expected = parity.nhwc(parity.Golden(OPS, name)["out"])
    np.testing.assert_array_equal(out, expected)

  @parameterized.named_parameters(*parity.named(OPS, "conv"))
  def test_padding_of_convolutions(self, name):
    kernel, stride, dilation, h, w = parity.numbers(name)
    x = mmseg_names.make_tensor(f"{name}.features", (1, 3, h, w))
    weight = mmseg_names.make_tensor(f"{name}.weight", (4, 3, kernel, kernel))
    module = layers.ConvBNAct(
        4, kernel, stride=stride, dilation=dilation, act=None
    )
    # With this variance and its epsilon, batch norm changes nothing.
    variables = {
        "params": {
            "conv": {"kernel": jnp.transpose(weight, (2, 3, 1, 0))},
            "bn": {"scale": jnp.ones(4), "bias": jnp.zeros(4)},
        },
        "batch_stats": {
            "bn": {"mean": jnp.zeros(4), "var": jnp.full(4, 1 - 1e-5)}
        },
    }

    out = module.apply(variables, parity.nhwc(x), train=False)

    expected = parity.nhwc(parity.Golden(OPS, name)["out"])
    np.testing.assert_allclose(out, expected, atol=2e-5)


class AdaptivePoolParityTest(parameterized.TestCase):

  @parameterized.parameters(*sorted(parity.cases(POOLS)))
  def test_adaptive_average_pool(self, name):
    *target, h, w = parity.numbers(name)
    x = mmseg_names.make_tensor(f"{name}.features", (2, 3, h, w))
    expected = parity.Golden(POOLS, name)["out"]

    rows = resizing.adaptive_pool_matrix(target[0], h)
    cols = resizing.adaptive_pool_matrix(target[1], w)
    out = resizing.adaptive_average_pool(jnp.asarray(parity.nhwc(x)), target)

    np.testing.assert_allclose(rows @ x @ cols.T, expected, atol=1e-6)
    np.testing.assert_allclose(out, parity.nhwc(expected), atol=1e-6)
