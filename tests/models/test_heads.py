"""All heads: parameter counts, contracts, dtypes, gradients."""

import functools

from absl.testing import parameterized
import chex
import flax
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from ctxseg_jax.models import encoding
from ctxseg_jax.models.heads import encnet
from ctxseg_jax.models.heads import HEADS

# On the features of ResNet-50, 21 classes, default fields.
NUM_PARAMS = {
    "danet": 23_957_697,
    "deeplabv2": 1_548_372,
    "deeplabv2_concat": 1_249_689,
    "deeplabv3": 15_540_501,
    "deeplabv3plus": 16_844_149,
    "double_attention": 23_869_845,
    "emanet": 10_886_933,
    "encnet": 10_002_058,
    "encoding_aux": 2_439_541,
    "fcn": 9_448_981,
    "fcn_se": 14_174_233,
    "fcn_vgg": 427_913_237,
    "mfnet": 6_230_965,
    "nonlocal": 24_132_885,
    "pooled": 1024 * 21 + 21,
    "pspnet": 23_084_565,
    "sanet": 11_210_462,
    "sca": 33_050_389,  # 23_601_408 of its own.
}

# With the fields of published models: PyTorch-Encoding's FCN and auxiliary
# (33.081 M and 2.365 M more on the deep stem), its EncNet for PASCAL-Context
# (43.915 M with backbone and auxiliary; 36.048 M without lateral), and
# mmsegmentation's FCN. Others are among the whole networks of `test_totals`.
PUBLISHED = (
    ("fcn", dict(num_classes=21), 33_081_000 - 23_631_808),
    ("fcn", dict(num_classes=21, stage="stage3"), 2_365_000),
    (
        "encnet",
        dict(num_classes=59, lateral=True),
        43_915_000 - 23_631_808 - 2_374_971,
    ),
    ("encnet", dict(num_classes=59), 36_048_000 - 23_631_808 - 2_374_971),
    (
        "fcn",
        dict(num_classes=21, channels=512, num_convs=2, concat_input=True),
        49_500_000 - 23_527_264 - 2_365_205,
    ),
    # The published EMANet counts its first 1x1 convolution, which gets no
    # gradient and is no parameter here.
    (
        "emanet",
        dict(num_classes=21),
        34_657_621 - 23_508_032 - (512 * 512 + 512),
    ),
    # mmsegmentation, both times; with auxiliary, and without.
    ("nonlocal", dict(num_classes=21), 50_030_000 - 23_527_264 - 2_365_205),
    ("danet", dict(num_classes=21), 47_590_000 - 23_631_808),
)


# Biases that the output does not depend on: a softmax over positions cancels
# those of keys, a batch norm those of values that are averaged with weights of
# sum 1. The published models have them.
CANCELLED = {
    "danet": ("position_attention/key/bias",),
    "double_attention": ("double_attention/gather/bias",),
    "nonlocal": ("non_local/key/bias", "non_local/value/bias"),
}


# What heads need besides the common fields on features of 8 x 8 (a batch norm
# of one cell per image has next to no gradient), and the size their default
# fields are for.
FIELDS = {"mfnet": dict(map_size=(8, 8)), "sanet": dict(pool_size=2)}
SIZES = {"mfnet": 33}

# Outputs that are no class scores.
NO_LOGITS = {"mfnet": ("reconstruction_residual",)}


def make_head(name, **fields):
  """Builds a head with what it needs on the maps of `make_features`."""
  if "host" in HEADS[name].__dataclass_fields__:
    shared = {k: v for k, v in fields.items() if k in ("num_classes", "dtype")}
    fields["host"] = HEADS["fcn"](**shared)
  return HEADS[name](**FIELDS.get(name, {}), **fields)


def make_features(batch=2, size=8, channels=(256, 512, 1024, 2048)):
  keys = jax.random.split(jax.random.key(0), 4)
  return {
      f"stage{i}": jax.random.normal(key, (batch, size, size, c))
      for i, (key, c) in enumerate(zip(keys, channels, strict=True), start=1)
  }


def small_head(name, dtype=jnp.float32):
  fields = dict(channels=16, dtype=dtype)
  if name == "pooled":  # Has no layers between features and logits.
    fields = {}
  return make_head(name, num_classes=5, **fields)


@functools.cache
def perturbed(name):
  """Returns a small head, features and variables, as parameters and others.

  Away from the initial values, where residual blocks are the identity.
  """
  features = make_features(channels=(4, 8, 16, 32))
  head = small_head(name)
  variables = networks.drawn(head, features)
  params = networks.perturb(variables.pop("params"), 0.1)
  return head, features, params, variables


class AllHeadsTest(parameterized.TestCase):

  def test_every_head_has_a_parameter_count(self):
    self.assertSameElements(HEADS, NUM_PARAMS)

  @parameterized.parameters(*NUM_PARAMS)
  def test_num_params(self, name):
    head = make_head(name, num_classes=21)
    if name in SIZES:
      head = HEADS[name](num_classes=21)
    features = make_features(batch=1, size=SIZES.get(name, 8))
    self.assertEqual(networks.num_params(head, features), NUM_PARAMS[name])

  @parameterized.parameters(*PUBLISHED)
  def test_num_params_of_published_models(self, name, fields, expected):
    # Published in millions with three digits (mmsegmentation: two).
    count = networks.num_params(make_head(name, **fields), make_features())
    two_digits = name == "nonlocal" or "num_convs" in fields
    slack = 5_000 if two_digits else 500
    self.assertLessEqual(abs(count - expected), slack)

  @parameterized.product(name=list(HEADS), dtype=(jnp.float32, jnp.bfloat16))
  def test_outputs_are_float32_and_named(self, name, dtype):
    features = make_features(channels=(4, 8, 16, 32))
    out, variables = networks.abstract(small_head(name, dtype), features)
    for key, x in out.items():
      self.assertEqual(x.dtype, jnp.float32)
      if key not in NO_LOGITS.get(name, ()):
        self.assertEqual(x.shape[-1], 5)
        self.assertEndsWith(key, "logits")
    for leaf in jax.tree.leaves(variables["params"]):
      self.assertEqual(leaf.dtype, jnp.float32)

  # Those that compute in float32 in between.
  @parameterized.parameters(
      *("danet", "double_attention", "emanet", "encnet", "mfnet", "sca")
  )
  def test_bfloat16_stays_near_float32(self, name):
    self._check_bfloat16(name)

  @parameterized.parameters(*HEADS)
  @pytest.mark.slow
  def test_every_head_in_bfloat16_does(self, name):
    self._check_bfloat16(name)

  def _check_bfloat16(self, name):
    _, features, params, state = perturbed(name)
    variables = {"params": params, **state}

    @jax.jit
    def evaluate(variables):
      return [
          small_head(name, dtype).apply(variables, features, train=False)
          for dtype in (jnp.float32, jnp.bfloat16)
      ]

    exact, rough = evaluate(variables)
    for key in exact:
      spread = float(jnp.std(exact[key]))
      error = float(jnp.max(jnp.abs(exact[key] - rough[key])))
      self.assertLess(error, 0.1 * spread, key)

  @parameterized.parameters(*HEADS)
  def test_every_parameter_has_a_gradient(self, name):
    head, features, params, state = perturbed(name)

    def loss(params):
      out, _ = head.apply(
          {"params": params, **state},
          features,
          train=True,
          mutable=list(state),
          rngs={"dropout": jax.random.key(1)},
      )
      return sum(
          jnp.sum(x * jax.random.normal(jax.random.key(2), x.shape))
          for x in out.values()
      )

    grads = jax.jit(jax.grad(loss))(params)
    grads = flax.traverse_util.flatten_dict(grads, sep="/")
    cancelled = CANCELLED.get(name, ())
    self.assertContainsSubset(cancelled, grads)
    for path, leaf in grads.items():
      self.assertTrue(np.all(np.isfinite(leaf)), path)
      if path in cancelled:
        self.assertLess(np.abs(leaf).max(), 1e-3, path)
      else:
        self.assertGreater(np.abs(leaf).max(), 1e-3, path)


class EncodeTest(chex.TestCase):

  def _inputs(self, seed=0, b=2, n=7, k=3, c=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(b, n, c)).astype(np.float32)
    codewords = rng.uniform(-0.5, 0.5, size=(k, c)).astype(np.float32)
    scale = rng.uniform(-1, 0, size=k).astype(np.float32)
    return x, codewords, scale

  @chex.variants(with_jit=True, without_jit=True)
  def test_matches_loops_over_equation_1(self):
    x, d, s = self._inputs()
    expected = np.zeros((2, 3, 5))
    for b in range(2):
      for i in range(7):
        r = x[b, i].astype(np.float64) - d
        # scale is the paper's -s_k.
        weights = np.exp(s * np.sum(r * r, axis=1))
        weights /= weights.sum()
        for k in range(3):
          expected[b, k] += weights[k] * r[k]
    encoded, assignments = self.variant(encoding.encode)(x, d, s)
    np.testing.assert_allclose(encoded, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(assignments.sum(-1), 1.0, rtol=1e-6)

  def test_gradients_match_the_form_with_all_residuals(self):
    x, d, s = self._inputs(b=2, n=50, k=8, c=16)
    probe = networks.normal(1, 2, 8, 16)

    def expanded(x, d, s):
      return jnp.sum(encoding.encode(x, d, s)[0] * probe)

    def naive(x, d, s):
      r = x[:, :, None] - d
      a = jax.nn.softmax(s * jnp.sum(r * r, -1), axis=-1)
      return jnp.sum(jnp.einsum("bnk,bnkc->bkc", a, r) * probe)

    ours, theirs = (
        jax.jit(jax.grad(f, argnums=(0, 1, 2)))(x, d, s)
        for f in (expanded, naive)
    )
    chex.assert_trees_all_close(ours, theirs, rtol=1e-3, atol=1e-4)

  def test_nothing_of_residual_size_is_materialised(self):
    b, n, k, c = 2, 1024, 32, 256
    args = (
        jax.ShapeDtypeStruct((b, n, c), jnp.float32),
        jax.ShapeDtypeStruct((k, c), jnp.float32),
        jax.ShapeDtypeStruct((k,), jnp.float32),
    )

    def loss(*a):
      return jnp.sum(jnp.square(encoding.encode(*a)[0]))

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*args).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    residuals = 4 * b * n * k * c
    self.assertLess(temporaries, residuals / 8)

  def test_dead_codewords_at_the_papers_width_have_finite_gradients(self):
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.maximum(rng.normal(size=(1, 256, 512)), 0), jnp.float32)
    d = jnp.asarray(rng.uniform(-0.008, 0.008, (32, 512)), jnp.float32)
    s = jnp.asarray(rng.uniform(-1, 0, 32), jnp.float32)

    def loss(x, d, s):
      encoded, assignments = encoding.encode(x, d, s)
      return jnp.sum(jnp.square(encoded)), assignments

    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (value, assignments), grads = grad(x, d, s)
    # One codeword takes nearly everything: a property of the layer.
    self.assertLess(float(encoding.effective_codewords(assignments)), 2.0)
    chex.assert_tree_all_finite((value, grads))

  def test_effective_codewords(self):
    even = jnp.full((1, 4, 8), 1 / 8)
    one = jnp.zeros((1, 4, 8)).at[..., 3].set(1.0)
    np.testing.assert_allclose(encoding.effective_codewords(even), 8, rtol=1e-5)
    np.testing.assert_allclose(encoding.effective_codewords(one), 1, rtol=1e-5)


class EncNetHeadTest(parameterized.TestCase):

  @parameterized.parameters(
      ("relu", lambda f, g: np.maximum(f + f * g, 0)),
      ("residual", lambda f, g: f + f * g),
      ("multiply", lambda f, g: f * g),
  )
  def test_gates(self, form, expected):
    x = jnp.array([[-2.0, 3.0]])
    gate = jnp.array([[0.25, 0.75]])
    np.testing.assert_allclose(
        encnet.apply_gate(x, gate, form), expected(np.array(x), np.array(gate))
    )

  def test_sum_over_codewords_is_k_times_the_mean(self):
    features = {"stage4": networks.normal(0, 2, 4, 4, 8)}
    head = encnet.EncNetHead(num_classes=5, channels=16, num_codewords=8)
    variables = networks.uniform(head, features)
    # Batch norm normalises each codeword.
    bn = variables["params"]["encoding"]["bn"]
    self.assertEqual(bn["scale"].shape, (8,))
    variables["params"]["se"]["bias"] *= 0
    mean, total = (
        networks.evaluate(x, variables, features)["se_logits"]
        for x in (head, head.clone(pooling="sum"))
    )
    np.testing.assert_allclose(total, 8 * mean, rtol=1e-4)

  def test_without_se_loss_there_is_no_se_output(self):
    head = encnet.EncNetHead(num_classes=5, channels=16, se_loss=False)
    out, variables = networks.abstract(head, make_features(channels=(4,) * 4))
    self.assertNotIn("se_logits", out)
    self.assertNotIn("se", variables["params"])

  def test_lateral_needs_equal_sizes(self):
    features = make_features(channels=(4, 8, 16, 32))
    features["stage4"] = features["stage4"][:, ::2, ::2]
    head = encnet.EncNetHead(num_classes=5, channels=16, lateral=True)
    with self.assertRaisesRegex(ValueError, "output_stride"):
      networks.abstract(head, features)
