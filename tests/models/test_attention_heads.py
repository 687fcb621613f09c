"""Attention heads: equations, memory, what starts as the identity, bases."""

from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from networks import abstract
from networks import count
from networks import drawn
from networks import initialize
from networks import normal
from networks import perturb
from networks import uniform
import numpy as np
import steps

from ctxseg_jax.models import attention
from ctxseg_jax.models.heads import danet
from ctxseg_jax.models.heads import double_attention
from ctxseg_jax.models.heads import emanet
from ctxseg_jax.models.heads import non_local

PROJECTIONS = ("query", "key", "value")


def softmax(x):
  weights = np.exp(x - np.max(x))
  return weights / weights.sum()


def dense(params, x):
  return x @ params["kernel"] + params.get("bias", 0.0)


class AttentionTest(parameterized.TestCase):

  def _inputs(self, n=23, m=19, d=4, c=6):
    return normal(0, 2, n, d), normal(1, 2, m, d), normal(2, 2, m, c)

  @parameterized.parameters(7, 23, 100)
  def test_matches_loops(self, chunk_size):
    queries, keys, values = self._inputs()
    expected = np.zeros((2, 23, 6))
    for b, i in np.ndindex(2, 23):
      weights = softmax([0.5 * queries[b, i] @ keys[b, j] for j in range(19)])
      for j in range(19):
        expected[b, i] += weights[j] * values[b, j]
    out = attention.attention(
        queries, keys, values, scale=0.5, chunk_size=chunk_size
    )
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(1, 7, 8, 22)
  def test_chunks_change_neither_values_nor_gradients(self, chunk_size):
    args = self._inputs()
    probe = normal(3, 2, 23, 6)

    def loss(size):
      def f(*args):
        return jnp.sum(probe * attention.attention(*args, chunk_size=size))

      return jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(*args)

    chex.assert_trees_all_close(
        loss(chunk_size), loss(1000), rtol=1e-5, atol=1e-5
    )

  def test_no_more_of_the_attention_than_a_chunk_is_materialised(self):
    b, n = 2, 1024

    def temporaries(chunk_size):
      def loss(*args):
        out = attention.attention(*args, chunk_size=chunk_size)
        return jnp.sum(jnp.square(out))

      args = [jax.ShapeDtypeStruct((b, n, c), jnp.float32) for c in (8, 8, 16)]
      grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
      compiled = grad.lower(*args).compile()
      return compiled.memory_analysis().temp_size_in_bytes

    whole = 4 * b * n * n
    self.assertGreater(temporaries(n), whole)
    self.assertLess(temporaries(64), whole / 3)

  def test_shards_of_the_batch_give_what_the_batch_gives(self):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    weight = normal(0, 5, 4)
    x = normal(1, 8, 23, 5)

    def loss(weight, x):
      y = x @ weight
      out = attention.attention(y, y, x, chunk_size=8)
      return jnp.sum(jnp.square(out))

    def sharded(weight, x):
      return jax.grad(lambda w: jax.lax.psum(loss(w, x), "data"))(weight)

    specs = dict(in_specs=(P(), P("data")), out_specs=P())
    grad = jax.jit(jax.shard_map(sharded, mesh=mesh, **specs))(weight, x)
    expected = jax.jit(jax.grad(loss))(weight, x)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(16, 64)
  def test_bfloat16_sums_in_float32(self, chunk_size):
    # Sharp: a logit rounded to bfloat16 would be wrong by a tenth.
    queries, keys, values = self._inputs(n=64, m=512)
    args = (8.0 * queries, keys, values)
    low = [jnp.asarray(x, jnp.bfloat16) for x in args]
    queries, keys, values = (np.asarray(x, np.float32) for x in low)
    logits = np.einsum("bnd,bmd->bnm", queries, keys)
    exact = np.einsum("bnm,bmc->bnc", jax.nn.softmax(logits), values)
    rough = attention.attention(*low, chunk_size=chunk_size)
    self.assertEqual(rough.dtype, jnp.bfloat16)
    np.testing.assert_allclose(
        rough.astype(jnp.float32), exact, rtol=2e-2, atol=2e-2
    )


class EquationsTest(parameterized.TestCase):

  def _assert_close(self, actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(1.0, 0.25)
  def test_em_step_matches_loops(self, scale):
    x, bases = normal(0, 2, 7, 4), normal(1, 2, 3, 4)
    z, new_bases = emanet.em_step(jnp.asarray(x), jnp.asarray(bases), scale)
    for b in range(2):
      logits = [scale * bases[b] @ x[b, i] for i in range(7)]
      expected_z = np.stack([softmax(row) for row in logits])
      np.testing.assert_allclose(z[b], expected_z, rtol=1e-5)
      for k in range(3):
        mean = sum(expected_z[i, k] * x[b, i] for i in range(7))
        mean /= expected_z[:, k].sum()
        mean /= np.linalg.norm(mean)
        np.testing.assert_allclose(new_bases[b, k], mean, rtol=1e-4, atol=1e-5)

  def _apply(self, block, channels, names, **kwargs):
    """Returns variables, pixels, their projections by name, the output."""
    x = normal(0, 2, 3, 4, channels)
    variables = uniform(block, x, kernels=0.5)
    out = block.apply(variables, x, **kwargs).reshape(2, 12, channels)
    pixels = x.reshape(2, 12, channels)
    projected = [dense(variables["params"][name], pixels) for name in names]
    return variables, pixels, projected, out

  def test_non_local_block_matches_loops(self):
    variables, pixels, projected, out = self._apply(
        non_local.NonLocalBlock(chunk_size=5), 6, PROJECTIONS, train=False
    )
    queries, keys, values = projected
    params, stats = variables["params"], variables["batch_stats"]
    for b, i in np.ndindex(2, 12):
      weights = softmax(keys[b] @ queries[b, i] / np.sqrt(3))
      y = dense(params["out"], weights @ values[b])
      y = (y - stats["bn"]["mean"]) / np.sqrt(stats["bn"]["var"] + 1e-5)
      y = y * params["bn"]["scale"] + params["bn"]["bias"]
      self._assert_close(out[b, i], pixels[b, i] + y)

  def test_position_attention_matches_loops(self):
    variables, pixels, projected, out = self._apply(
        danet.PositionAttention(chunk_size=5), 16, PROJECTIONS
    )
    queries, keys, values = projected
    self.assertEqual(queries.shape, (2, 12, 2))
    for b, i in np.ndindex(2, 12):
      y = softmax(keys[b] @ queries[b, i]) @ values[b]
      expected = variables["params"]["gamma"] * y + pixels[b, i]
      self._assert_close(out[b, i], expected)

  def test_channel_attention_matches_loops(self):
    x = normal(0, 2, 7, 4)
    out = danet.channel_attention(jnp.asarray(x))
    for b, i in np.ndindex(2, 4):
      energy = np.array([x[b, :, i] @ x[b, :, j] for j in range(4)])
      weights = softmax(energy.max() - energy)
      expected = sum(weights[j] * x[b, :, j] for j in range(4))
      np.testing.assert_allclose(out[b, :, i], expected, rtol=1e-4, atol=1e-5)

  def test_channel_attention_survives_large_similarities(self):
    x = 100.0 * jnp.abs(jnp.asarray(normal(0, 1, 64, 4)))
    grads = jax.grad(lambda x: jnp.sum(danet.channel_attention(x)))(x)
    self.assertTrue(np.all(np.isfinite(grads)))

  @parameterized.parameters("descriptors", "positions")
  def test_double_attention_matches_loops(self, form):
    # Width 4, three descriptors.
    variables, pixels, projected, out = self._apply(
        double_attention.DoubleAttentionBlock(2, 3, form),
        8,
        ("features", "gather", "distribute"),
    )
    features, gather, distribute = projected
    self.assertEqual(features.shape, (2, 12, 4))
    self.assertEqual(gather.shape, (2, 12, 3))
    for b, i in np.ndindex(2, 12):
      descriptors = [softmax(gather[b, :, k]) @ features[b] for k in range(3)]
      if form == "descriptors":
        weights = softmax(distribute[b, i])
      else:
        weights = [softmax(distribute[b, :, k])[i] for k in range(3)]
      z = sum(weights[k] * descriptors[k] for k in range(3))
      expected = pixels[b, i] + dense(variables["params"]["out"], z)
      self._assert_close(out[b, i], expected)

  @parameterized.parameters(
      (4, None, 263_040), (1, None, 1_050_624), (1, 64, 590_976)
  )
  def test_parameters_of_double_attention(
      self, reduction, num_descriptors, expected
  ):
    block = double_attention.DoubleAttentionBlock(reduction, num_descriptors)
    _, variables = abstract(block, jnp.zeros((1, 2, 2, 512)))
    self.assertEqual(count(variables), expected)


class IdentityTest(parameterized.TestCase):

  @parameterized.parameters(
      (non_local.NonLocalBlock(), dict(train=True)),
      (double_attention.DoubleAttentionBlock(), {}),
      (danet.PositionAttention(), {}),
      (danet.ChannelAttention(), {}),
  )
  def test_block_is_the_identity_at_first_only(self, block, kwargs):
    x = normal(0, 2, 4, 4, 16)
    variables = block.init(jax.random.key(0), x, **kwargs)
    out, _ = block.apply(variables, x, mutable=["batch_stats"], **kwargs)
    np.testing.assert_array_equal(out, x)
    variables = {**variables, "params": perturb(variables["params"])}
    out, _ = block.apply(variables, x, mutable=["batch_stats"], **kwargs)
    self.assertGreater(np.abs(out - x).max(), 1e-2)


class EMAHeadTest(parameterized.TestCase):

  def test_bases_start_normalised_and_only_training_updates_them(self):
    features = {"stage4": normal(0, 4, 4, 4, 12)}
    fields = dict(channels=8, num_bases=5, dropout_rate=0.0)
    head = emanet.EMAHead(num_classes=3, **fields)
    variables = initialize(head, features)
    bases = variables["bases"]["em"]["mean"]
    self.assertEqual(bases.shape, (5, 8))
    np.testing.assert_allclose(np.linalg.norm(bases, axis=1), 1, rtol=1e-4)
    kw = dict(train=False, mutable=list(variables))
    _, updated = jax.jit(lambda v: head.apply(v, features, **kw))(variables)
    chex.assert_trees_all_equal(updated, variables)

  @parameterized.parameters((False, 1.0), (True, 0.5))
  def test_bases_move_by_a_tenth_of_the_mean_over_the_batch(
      self, normalize, scale
  ):
    module = emanet.EMAttention(
        num_bases=5, normalize_mean=normalize, softmax_scale=scale
    )
    x = normal(0, 4, 3, 3, 8)
    variables = drawn(module, x)
    kw = dict(train=True, mutable=["bases", "batch_stats"])
    _, updated = jax.jit(lambda v: module.apply(v, x, **kw))(variables)
    pixels = dense(variables["frozen"]["pre"], x.reshape(4, 9, 8))
    old = np.asarray(variables["bases"]["mean"])
    bases = jnp.broadcast_to(old, (4, 5, 8))
    for _ in range(3):
      _, bases = emanet.em_step(pixels, bases, scale)
    mean = np.mean(bases, axis=0)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    # The original's mean is shorter than 1: images disagree.
    self.assertLess(norm.min(), 0.95)
    if normalize:
      mean = mean / norm
    np.testing.assert_allclose(
        updated["bases"]["mean"], 0.9 * old + 0.1 * mean, rtol=1e-4, atol=1e-5
    )

  def test_gradients_pass_the_reconstruction_by(self):
    module = emanet.EMAttention(num_bases=5)
    x = normal(0, 2, 3, 3, 8)
    probe = normal(1, 2, 3, 3, 8)
    variables = drawn(module, x)
    # For a batch norm that is not affine with a bias of 0.
    params = perturb(variables.pop("params"))

    def loss(state, x):
      out = module.apply({"params": params, **state}, x, train=False)
      return jnp.sum(probe * out), out

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (grads, x_grad), out = grad(variables, x)
    # Only the identity, where the last ReLU is open.
    np.testing.assert_allclose(x_grad, np.where(out > 0, probe, 0), rtol=1e-6)
    for name in ("bases", "frozen"):
      for leaf in jax.tree.leaves(grads[name]):
        np.testing.assert_array_equal(leaf, 0.0)
      moved = {**variables, name: perturb(variables[name])}
      self.assertGreater(np.abs(grad(moved, x)[1] - out).max(), 1e-3)

  def test_training_step_on_4_devices_equals_one(self):
    model = dict(
        backbone=dict(name="shallow", channels=8),
        head=dict(name="emanet", channels=8, num_bases=4, dropout_rate=0.0),
    )
    loss = dict(logits=dict(loss="softmax_cross_entropy"))
    results = []
    for n in (1, 4):
      step, state, put = steps.make_step(n, model, loss, weight_decay=0.1)
      before = jax.device_get(state)
      state, _ = step(state, put(steps.make_batch()), jax.random.key(1))
      results.append(jax.device_get(state))
    chex.assert_trees_all_close(results[0], results[1], rtol=1e-3, atol=1e-4)
    one, many = (x.model_state for x in results)
    chex.assert_trees_all_close(
        one["bases"], many["bases"], rtol=1e-4, atol=1e-5
    )
    # Weight decay does not reach what has no gradient.
    chex.assert_trees_all_equal(many["frozen"], before.model_state["frozen"])
    old = before.model_state["bases"]["head"]["em"]["mean"]
    new = many["bases"]["head"]["em"]["mean"]
    self.assertGreater(np.abs(new - old).max(), 1e-3)
