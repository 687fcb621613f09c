"""Resizing, pooling and padding give the numbers of PyTorch.

`golden/make_mmseg.py` and `make_mmseg_pyramids.py` computed what is expected.
"""

import re

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import mmseg_names
import numpy as np
import test_mmseg_parity as parity

from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing

GOLDEN = np.load(parity.GOLDEN / "torch_ops.npz")
POOLS = np.load(parity.GOLDEN / "torch_adaptive_pool.npz")


def named(kind):
  names = sorted({k.rpartition("/")[0] for k in GOLDEN.files})
  return [(n.split("/")[1], n) for n in names if n.startswith(f"{kind}/")]


def numbers(name):
  return [int(x) for x in re.findall(r"\d+", name)]


class ResizeParityTest(parameterized.TestCase):

  @parameterized.named_parameters(*named("resize"))
  def test_bilinear(self, name):
    h, w, *target = numbers(name)
    x = mmseg_names.make_tensor(f"{name}.features", (h, w))
    for align_corners, key in ((False, "half_pixel"), (True, "aligned")):
      expected = GOLDEN[f"{name}/{key}"]

      rows = resizing.resize_matrix(target[0], h, align_corners=align_corners)
      cols = resizing.resize_matrix(target[1], w, align_corners=align_corners)
      out = resizing.resize_bilinear(
          jnp.asarray(x)[None, ..., None], target, align_corners=align_corners
      )

      np.testing.assert_allclose(rows @ x @ cols.T, expected, atol=2e-5)
      np.testing.assert_allclose(out[0, ..., 0], expected, atol=2e-5)

  @parameterized.named_parameters(*named("pool"))
  def test_max_pool_of_negative_values(self, name):
    x = mmseg_names.make_tensor(f"{name}.features", (1, 2, *numbers(name)))
    x = jnp.moveaxis(x - 3.0, 1, -1)

    out = resizing.max_pool(x)

    self.assertLess(out.max(), -1.0)
    np.testing.assert_array_equal(
        out, np.moveaxis(GOLDEN[f"{name}/out"], 1, -1)
    )

  @parameterized.named_parameters(*named("conv"))
  def test_padding_of_convolutions(self, name):
    kernel, stride, dilation, h, w = numbers(name)
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

    out = module.apply(variables, jnp.moveaxis(x, 1, -1), train=False)

    np.testing.assert_allclose(
        out, np.moveaxis(GOLDEN[f"{name}/out"], 1, -1), atol=2e-5
    )


class AdaptivePoolParityTest(parameterized.TestCase):

  @parameterized.parameters(*[k.removesuffix("/out") for k in POOLS.files])
  def test_adaptive_average_pool(self, name):
    *target, h, w = numbers(name)
    x = mmseg_names.make_tensor(f"{name}.features", (2, 3, h, w))
    expected = POOLS[f"{name}/out"]

    rows = resizing.adaptive_pool_matrix(target[0], h)
    cols = resizing.adaptive_pool_matrix(target[1], w)
    out = resizing.adaptive_average_pool(jnp.asarray(parity.nhwc(x)), target)

    np.testing.assert_allclose(rows @ x @ cols.T, expected, atol=1e-6)
    np.testing.assert_allclose(out, parity.nhwc(expected), atol=1e-6)


if __name__ == "__main__":
  absltest.main()
