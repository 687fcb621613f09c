"""PSPNet and DeepLab: pooling, options, statistics over devices."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import networks
import numpy as np

from ctxseg_jax.models import layers
from ctxseg_jax.models import resizing
from ctxseg_jax.models.heads import deeplabv3
from ctxseg_jax.models.heads import deeplabv3plus
from ctxseg_jax.models.heads import pspnet

FEATURES = {
    "stage1": networks.normal(0, 2, 10, 10, 4),
    "stage4": networks.normal(1, 2, 5, 5, 16),
}


class AdaptivePoolTest(parameterized.TestCase):

  def test_bins_of_seven_samples(self):
    np.testing.assert_allclose(
        resizing.adaptive_pool_matrix(3, 7),
        # [0, 3), [2, 5) and [4, 7): neighbours share a sample.
        np.array([[1] * 3 + [0] * 4, [0, 0, 1, 1, 1, 0, 0], [0] * 4 + [1] * 3])
        / 3,
        rtol=1e-6,
    )

  @parameterized.parameters((1, 1, 2, 1), (1, 2, 1, 1))
  def test_bfloat16_maps_are_averaged_in_float32(self, *shape):
    # 1 + 2^-7 is a bfloat16; the mean with 1 is none.
    x = jnp.array([1.0, 1.0078125], jnp.bfloat16).reshape(shape)
    out = resizing.adaptive_average_pool(x, (1, 1))
    self.assertEqual(out.dtype, jnp.float32)
    self.assertEqual(float(out[0, 0, 0, 0]), 1.00390625)


class OptionsTest(parameterized.TestCase):

  def test_rates_do_not_change_the_parameters(self):
    head = deeplabv3.DeepLabV3Head(num_classes=5, channels=8, rates=(1, 2, 3))
    variables = networks.uniform(head, FEATURES)
    other = head.clone(rates=(2, 4, 6))
    out, wider = (
        networks.evaluate(x, variables, FEATURES)["logits"]
        for x in (head, other)
    )
    self.assertGreater(np.abs(out - wider).max(), 1e-3)

  @parameterized.parameters(
      (deeplabv3.DeepLabV3Head, "aspp_dropout_rate"),
      (deeplabv3.DeepLabV3Head, "dropout_rate"),
      (deeplabv3plus.DeepLabV3PlusHead, "aspp_dropout_rate"),
      (deeplabv3plus.DeepLabV3PlusHead, "decoder_dropout_rate"),
      (deeplabv3plus.DeepLabV3PlusHead, "dropout_rate"),
  )
  def test_each_dropout_drops_when_training_only(self, cls, field):
    rates = {"aspp_dropout_rate": 0.0, "dropout_rate": 0.0}
    if cls is deeplabv3plus.DeepLabV3PlusHead:
      rates["decoder_dropout_rate"] = 0.0
    head = cls(num_classes=5, channels=8, **rates)
    variables = networks.uniform(head, FEATURES)

    def run(features, train, **fields):
      rngs = {"dropout": jax.random.key(1)}
      kw = dict(train=train, mutable="batch_stats", rngs=rngs)
      return head.clone(**fields).apply(variables, features, **kw)[0]["logits"]

    drops = {field: 0.5}
    # The same program, so that it need not run.
    plain, dropped = (
        str(jax.make_jaxpr(lambda x, f=f: run(x, False, **f))(FEATURES))
        for f in ({}, drops)
    )
    self.assertEqual(plain, dropped)
    whole, elements, channels = jax.jit(
        lambda x: [
            run(x, True, **fields)
            for fields in ({}, drops, drops | dict(channel_dropout=True))
        ]
    )(FEATURES)
    self.assertGreater(np.abs(whole - elements).max(), 1e-2)
    self.assertGreater(np.abs(elements - channels).max(), 1e-2)


class PooledBatchNormTest(parameterized.TestCase):

  @parameterized.named_parameters(
      ("pspnet", pspnet.PSPHead, ("pyramid", "bin1")),
      ("deeplabv3", deeplabv3.DeepLabV3Head, ("aspp", "image_pool")),
      (
          "deeplabv3plus",
          deeplabv3plus.DeepLabV3PlusHead,
          ("aspp", "image_pool"),
      ),
  )
  def test_statistics_are_those_of_all_devices(self, cls, path):
    # One image per device: alone, each would have a variance of 0.
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    spec = jax.sharding.PartitionSpec
    head = cls(num_classes=5, channels=8)
    variables = networks.drawn(head, FEATURES)

    def run(head):
      def apply(features):
        rngs = {"dropout": jax.random.key(1)}
        kw = dict(train=True, mutable=["batch_stats"], rngs=rngs)
        _, updates = head.apply(variables, features, **kw)
        return updates["batch_stats"][path[0]][path[1]]["bn"]

      return apply

    one = jax.jit(run(head))(FEATURES)
    many = run(head.clone(norm=layers.Norm(axis_name="data")))
    specs = dict(in_specs=spec("data"), out_specs=spec())
    two = jax.jit(jax.shard_map(many, mesh=mesh, **specs))(FEATURES)

    # Momentum 0.9 from a variance of 1.
    self.assertGreater(one["var"].max(), 0.9 + 1e-4)
    for key in ("mean", "var"):
      np.testing.assert_allclose(one[key], two[key], rtol=1e-5, atol=1e-6)
