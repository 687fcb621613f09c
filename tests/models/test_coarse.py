"""Convolutions over coarse maps equal those over upsampled ones."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import coarse
from ctxseg_jax.models import resizing

_SIZE = (9, 13)
# Of the coarse maps: as of a pyramid, of a decoder, of an image's mean.
_COARSE = ((2, 2), (5, 7), (1, 1))


def _maps():
  keys = jax.random.split(jax.random.key(0), 5)
  sizes = (_SIZE, *_COARSE, _SIZE)
  return [
      jax.random.normal(key, (2, *size, channels))
      for key, size, channels in zip(keys, sizes, (4, 3, 5, 2, 3), strict=True)
  ]


def _parts(maps, align_corners):
  fine, *few, other = maps
  few = [coarse.Upsampled(x, align_corners) for x in few]
  # In between and at the end.
  return [fine, *few[:2], other, few[2]]


def _concatenated(maps, align_corners):
  maps = [
      resizing.resize_bilinear(x, _SIZE, align_corners=align_corners)
      for x in maps
  ]
  return jnp.concatenate([*maps[:3], maps[4], maps[3]], axis=-1)


class CoarseTest(parameterized.TestCase):

  @parameterized.parameters((False, 1), (True, 3), (False, 5))
  def test_equals_the_convolution_of_upsampled_maps(self, align_corners, size):
    kw = dict(kernel_init=nn.initializers.normal(), dtype=jnp.float32)
    joined = coarse.JoinedConv(6, size, **kw)
    plain = nn.Conv(6, (size, size), padding=size // 2, use_bias=False, **kw)
    variables = joined.init(
        jax.random.key(1), _parts(_maps(), align_corners), train=False
    )

    @functools.partial(jax.jit, static_argnums=0)
    def of(convolve):
      out, backward = jax.vjp(convolve, variables, _maps())
      return out, *backward(jnp.cos(out))

    expected = of(
        lambda v, maps: plain.apply(v, _concatenated(maps, align_corners))
    )
    for train in (False, True):
      actual = of(
          lambda v, maps, train=train: joined.apply(
              v, _parts(maps, align_corners), train=train
          )
      )
      for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

  def test_makes_no_upsampled_map(self):
    joined = coarse.JoinedConv(6, 3, nn.initializers.normal(), jnp.bfloat16)
    parts = _parts(_maps(), False)
    out, variables = joined.init_with_output(
        jax.random.key(1), parts, train=True
    )
    self.assertEqual(out.dtype, jnp.bfloat16)
    jaxpr = str(
        jax.make_jaxpr(lambda v: joined.apply(v, parts, train=True))(variables)
    )
    self.assertIn("[2,9,13,7]", jaxpr)  # The two that are fine.
    self.assertNotIn("[2,9,13,17]", jaxpr)
    self.assertNotIn("[2,9,13,5]", jaxpr)


if __name__ == "__main__":
  absltest.main()
