"""Rematerialisation keeps less, and changes no gradient and no collective."""

import functools

from absl.testing import absltest
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import networks
import numpy as np

from ctxseg_jax.models import layers
from ctxseg_jax.models import remat
from ctxseg_jax.models.backbones import BACKBONES
from ctxseg_jax.models.backbones import resnet

MODES = ("none", "conv", "block")


class Blocks(nn.Module):
  """Two residual blocks."""

  mode: remat.Remat
  norm: layers.Norm = layers.Norm()

  @nn.compact
  def __call__(self, x, *, train):
    for i in range(2):
      block = resnet.BasicBlock(
          4, 1, 1, False, self.norm, jnp.float32, name=f"block{i}"
      )
      x = remat.run_block(block, x, train=train, remat=self.mode)
    return x


def lower(mode):
  """Returns the lowered gradient on two devices, and what it is taken at."""
  inputs = networks.normal(0, 4, 6, 6, 4)
  variables = networks.uniform(Blocks(mode), inputs)
  model = Blocks(mode, layers.Norm("data"))

  def loss(params, stats, x):
    out, stats = model.apply(
        {"params": params, "batch_stats": stats},
        x,
        train=True,
        mutable=["batch_stats"],
    )
    return jax.lax.psum(jnp.sum(out**2), "data"), stats

  mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
  gradient = jax.shard_map(
      jax.grad(loss, has_aux=True),
      mesh=mesh,
      in_specs=(P(), P(), P("data")),
      out_specs=P(),
  )
  args = variables["params"], variables["batch_stats"], inputs
  return jax.jit(gradient).lower(*args), args


def apply(model, params, variables, images):
  """Runs a network in training."""
  kw = dict(mutable=list(variables), rngs={"dropout": jax.random.key(0)})
  variables = {"params": params, **variables}
  return model.apply(variables, images, train=True, **kw)[0]


def residual_bytes(model):
  """Returns what the backward pass of 64 images gets from the forward pass."""
  _, variables = networks.abstract(model)
  params = variables.pop("params")

  def residuals(params, variables, images):
    return jax.vjp(lambda p: apply(model, p, variables, images), params)[1]

  images = jnp.zeros((64, 64, 64, 3))
  kept = jax.eval_shape(residuals, params, variables, images)
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))


class RematTest(absltest.TestCase):

  def test_gradients_and_collectives_stay(self):
    plain, args = lower("none")
    expected = plain.compile()(*args)
    for mode in MODES[1:]:
      lowered, args = lower(mode)
      with self.subTest(mode):
        chex.assert_trees_all_close(
            lowered.compile()(*args), expected, rtol=1e-5
        )
        count = lowered.as_text().count("all_reduce")
        self.assertEqual(count, plain.as_text().count("all_reduce"))

  def test_less_is_kept(self):
    none, conv, block = (
        residual_bytes(BACKBONES["resnet"](depth=18, remat=mode))
        for mode in MODES
    )
    # Of three maps kept between convolutions one is computed again.
    self.assertLess(conv, 0.9 * none)
    self.assertLess(block, 0.6 * conv)

  def test_every_block_of_an_efficientnet_is_one(self):
    model = BACKBONES["efficientnet"](variant="lite0", remat="conv")
    _, variables = networks.abstract(model)
    params = variables.pop("params")
    images = jnp.zeros((1, 64, 64, 3))
    program = jax.make_jaxpr(functools.partial(apply, model))(
        params, variables, images
    )
    equations = [str(e.primitive) for e in program.eqns]
    blocks = sum("_block" in name or name == "stem" for name in params)
    self.assertEqual(equations.count("remat2"), blocks, set(equations))


if __name__ == "__main__":
  absltest.main()
