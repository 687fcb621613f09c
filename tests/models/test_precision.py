"""Products that are to be float32 ask for it, as GPUs and TPUs need.

Nothing is computed: what a network would ask of any device is in its trace.
"""

from absl.testing import parameterized
import flax.linen as nn
import jax
from jax.extend import core
import jax.numpy as jnp
import networks
import numpy as np
import test_heads

from ctxseg_jax.models import attention
from ctxseg_jax.models import coarse
from ctxseg_jax.models import encoding
from ctxseg_jax.models import products
from ctxseg_jax.models.backbones import cifar_resnet
from ctxseg_jax.models.heads import danet
from ctxseg_jax.models.heads import double_attention
from ctxseg_jax.models.heads import emanet
from ctxseg_jax.models.heads import HEADS

# Layers whose precision follows from the compute dtype that a user chooses.
CONVS = (nn.Conv, coarse.JoinedConv)
LAYERS = (nn.Dense, *CONVS, emanet.FrozenConv)


def rough_products(function, *args):
  """Returns the float32 products whose precision is left to the device."""
  return list(_find(jax.make_jaxpr(function)(*args).jaxpr))


def _find(jaxpr):
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "dot_general":
      is_float32 = all(x.aval.dtype == jnp.float32 for x in eqn.invars)
      precision = eqn.params["precision"]
      if is_float32 and precision not in (
          products.FULL,
          (products.FULL, products.FULL),
      ):
        yield f"{eqn.source_info.name_stack}: {eqn}"
    for value in eqn.params.values():
      for x in value if isinstance(value, tuple | list) else (value,):
        if isinstance(x, core.ClosedJaxpr):
          yield from _find(x.jaxpr)
        elif isinstance(x, core.Jaxpr):
          yield from _find(x)


def full(*layers):
  """Gives layers full precision, so that what else there is remains."""

  def call(next_fun, args, kwargs, context):
    if isinstance(context.module, layers) and context.method_name == "__call__":
      with jax.default_matmul_precision("highest"):
        return next_fun(*args, **kwargs)
    return next_fun(*args, **kwargs)

  return nn.intercept_methods(call)


def traced(module, inputs):
  rngs = dict(params=jax.random.key(0), dropout=jax.random.key(1))
  return rough_products(
      lambda x: module.init_with_output(rngs, x, train=True), inputs
  )


class HeadsTest(parameterized.TestCase):

  @parameterized.parameters(*HEADS)
  def test_no_float32_product_is_left_to_the_device(self, name):
    features = test_heads.make_features(channels=(4, 8, 16, 32))
    # In a bfloat16 network what is float32 is so for a reason; of classifiers,
    # whose 1x1 convolution is a product, that is what they return.
    head = test_heads.small_head(name, jnp.bfloat16)
    with full(*CONVS):
      self.assertEmpty(traced(head, features))
    with full(*LAYERS):
      self.assertEmpty(traced(test_heads.small_head(name), features))

  @parameterized.parameters("encoding", "squeeze_excitation")
  def test_nor_in_the_gates_of_backbones(self, block):
    backbone = cifar_resnet.CifarResNet(block, 1, dtype=jnp.bfloat16)
    self.assertEmpty(traced(backbone, jnp.zeros((1, 8, 8, 3))))

  def test_what_is_left_to_it_is_found(self):
    layer = nn.Dense(3)
    x = jnp.zeros((2, 4))
    rng = jax.random.key(0)
    found = rough_products(lambda x: layer.init_with_output(rng, x), x)
    self.assertLen(found, 1)
    with full(*LAYERS):
      found = rough_products(lambda x: layer.init_with_output(rng, x), x)
    self.assertEmpty(found)


def _sum(function):
  return lambda *args: sum(map(jnp.sum, jax.tree.leaves(function(*args))))


class GradientsTest(parameterized.TestCase):

  @parameterized.parameters(
      (attention.attention, (2, 5, 3), (2, 4, 3), (2, 4, 6)),
      (encoding.encode, (2, 5, 3), (4, 3), (4,)),
      (danet.channel_attention, (2, 5, 3)),
      (double_attention.double_attention, (2, 5, 3), (2, 5, 4), (2, 5, 4)),
      (emanet.em_step, (2, 5, 3), (2, 4, 3)),
  )
  def test_they_are_as_full(self, function, *shapes):
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    grad = jax.grad(_sum(function), argnums=tuple(range(len(args))))
    self.assertEmpty(rough_products(grad, *args))


class EncodeTest(parameterized.TestCase):

  def test_distances_to_near_codewords_are_those_of_float32(self):
    # Codewords as training leaves them, among the features: rounded to
    # bfloat16 they change assignments by percents.
    rng = np.random.default_rng(0)
    center = np.abs(rng.normal(size=512))
    x, d = (center + 0.05 * rng.normal(size=(n, 512)) for n in (64, 8))
    s = np.float32(rng.uniform(-1, 0, 8))
    x, d = jnp.asarray(x[None], jnp.bfloat16), np.float32(d)
    residuals = np.float64(x[0])[:, None] - d
    expected = jax.nn.softmax(s * np.sum(residuals**2, axis=-1))
    _, assignments = encoding.encode(x, d, s)
    self.assertLess(jnp.mean(jnp.max(assignments, axis=-1)), 0.9)
    np.testing.assert_allclose(assignments[0], expected, atol=1e-3)

  def test_without_codewords_it_is_the_mean(self):
    x = networks.normal(0, 2, 3, 4, 8)
    module = encoding.ContextEncoding(num_codewords=0, project=False)
    variables = module.init(jax.random.key(0), x, train=False)
    self.assertEmpty(jax.tree.leaves(variables))
    out = module.apply(variables, x, train=False)
    np.testing.assert_allclose(out, x.mean(axis=(1, 2)), rtol=1e-5)
