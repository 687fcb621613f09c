"""SANet and FCN-SE against loops over the paper's equations."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import networks
import numpy as np

from ctxseg_jax.models import resizing
from ctxseg_jax.models.heads import fcn_se
from ctxseg_jax.models.heads import sanet

SIZES = {"stage1": 12, "stage2": 6, "stage3": 6, "stage4": 6}
WIDTHS = {"stage1": 8, "stage2": 16, "stage3": 16, "stage4": 24}


def make_features(batch=2):
  rng = np.random.default_rng(0)
  return {
      stage: rng.normal(size=(batch, n, n - 1, WIDTHS[stage])).astype("float32")
      for stage, n in SIZES.items()
  }


# The equations.


def pool(x, size, reduce):
  b, h, w, c = x.shape
  out = np.zeros((b, -(-h // size), -(-w // size), c))
  for i, j in np.ndindex(out.shape[1:3]):
    cell = x[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
    out[:, i, j] = reduce(cell, axis=(1, 2))
  return out


def upsample(x, size):
  """Half-pixel bilinear interpolation with clamped edges."""
  shares = []
  for target, source in zip(size, x.shape[1:3], strict=True):
    y = (np.arange(target) + 0.5) * source / target - 0.5
    y = np.clip(y, 0, source - 1)[:, None]
    shares.append(np.maximum(0, 1 - abs(y - np.arange(source))))
  return np.einsum("Hh,Ww,bhwc->bHWc", *shares, x)


def conv_bn_relu(x, variables, name, groups=1):
  params, stats = (variables[k][name] for k in ("params", "batch_stats"))
  x = networks.convolve(x, params["conv"]["kernel"], groups=groups)
  x = (x - stats["bn"]["mean"]) / np.sqrt(stats["bn"]["var"] + 1e-5)
  return np.maximum(x * params["bn"]["scale"] + params["bn"]["bias"], 0)


def classify(x, layer):
  return x @ layer["conv"]["kernel"][0, 0] + layer["conv"]["bias"]


def squeeze_attention(x, variables, groups, size, reduce=np.mean):
  """Paper: Eqs. (4) and (5)."""
  res, attn = x, pool(x, size, reduce)
  for i in (1, 2):
    res = conv_bn_relu(res, variables, f"main{i}", groups)
    attn = conv_bn_relu(attn, variables, f"attention{i}", groups)
  attn = upsample(attn, x.shape[1:3])
  return attn * res + attn


def under(variables, name):
  return {k: variables[k][name] for k in variables if name in variables[k]}


class PoolTest(parameterized.TestCase):

  @parameterized.product(
      # 60 is the size of stage 4 for images of 480: eight cells.
      size=((60, 17), (16, 8), (3, 5)),
      kind=("average", "max"),
  )
  def test_cells_count_real_pixels_only(self, size, kind):
    # All below 0: zeros beyond the edge would win, or pull the mean up.
    x = np.random.default_rng(0).uniform(-2, -1, (2, *size, 3))
    expected = pool(x, 8, {"average": np.mean, "max": np.max}[kind])
    actual = resizing.pool_cells(jnp.asarray(x, jnp.bfloat16), 8, kind)
    self.assertEqual(actual.dtype, jnp.float32)
    np.testing.assert_allclose(actual, expected, atol=1e-2)
    actual = resizing.pool_cells(jnp.asarray(x, jnp.float32), 8, kind)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


class SqueezeAttentionTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(), 2, np.mean), (dict(groups=1, pooling="max"), 1, np.max)
  )
  def test_matches_loops_over_equations_4_and_5(self, fields, groups, reduce):
    x = np.random.default_rng(0).normal(size=(2, 12, 9, 8)).astype(np.float32)
    module = sanet.SqueezeAttention(4, pool_size=5, **fields)
    variables = networks.uniform(module, x)
    expected = squeeze_attention(x, variables, groups, 5, reduce)
    self.assertGreater(np.std(expected), 0.1)
    # A sigmoid would be bounded.
    self.assertGreater(np.max(expected), 1.0)
    out = networks.evaluate(module, variables, x)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)

  def test_groups_that_do_not_divide_a_width_are_named(self):
    for channels, width in ((3, 8), (4, 7)):
      with self.assertRaisesRegex(ValueError, "groups=2.*channels"):
        networks.uniform(
            sanet.SqueezeAttention(channels), jnp.zeros((1, 8, 8, width))
        )


class SANetHeadTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.features = make_features()
    self.head = sanet.SANetHead(num_classes=5, pool_size=4)
    self.variables = networks.uniform(self.head, self.features)

  def test_masks_categories_and_prediction_match_the_paper(self):
    out = networks.evaluate(self.head, self.variables, self.features)
    params = self.variables["params"]
    maps = {}
    for stage, x in self.features.items():
      attention = under(self.variables, f"{stage}_attention")
      x = squeeze_attention(x, attention, 2, 4)
      maps[stage] = classify(x, params[f"{stage}_classifier"])
    masks = np.concatenate([upsample(x, (12, 11)) for x in maps.values()], -1)
    masks = classify(masks, params["fusion"])
    dense = conv_bn_relu(self.features["stage4"], self.variables, "dense")
    dense = classify(dense, params["dense_classifier"])
    for name, expected in (
        ("mask_logits", masks),
        ("category_logits", masks.mean((1, 2))),
        ("dense_logits", dense),
        ("logits", dense + maps["stage4"]),
    ):
      np.testing.assert_allclose(
          out[name], expected, rtol=1e-3, atol=1e-3, err_msg=name
      )
    self.assertLen(out, 4)

  def test_gradients_reach_what_each_output_is_made_of(self):
    modules = {f"{s}_{k}" for s in SIZES for k in ("attention", "classifier")}
    fourth = {"stage4_attention", "stage4_classifier"}
    dense = {"dense", "dense_classifier"}
    made_of = {
        "mask_logits": modules | {"fusion"},
        "category_logits": modules | {"fusion"},
        "dense_logits": dense,
        "logits": dense | fourth,
    }

    @jax.jit
    def gradients(params):
      out, pull = jax.vjp(
          lambda p: self.head.apply(
              {**self.variables, "params": p}, self.features, train=False
          ),
          params,
      )
      zero = jax.tree.map(jnp.zeros_like, out)
      key = jax.random.key(0)
      return {
          name: pull(zero | {name: jax.random.normal(key, x.shape)})[0]
          for name, x in out.items()
      }

    for name, grads in gradients(self.variables["params"]).items():
      for part, tree in grads.items():
        touched = [np.any(x) for x in jax.tree.leaves(tree)]
        check = all if part in made_of[name] else lambda x: not any(x)
        self.assertTrue(check(touched), (name, part))

  def test_the_masks_can_be_the_prediction(self):
    def run(variables, **fields):
      head = self.head.clone(**fields)
      return jax.jit(lambda v: head.apply(v, self.features, train=False))(
          variables
      )

    full = run(self.variables)
    fields = dict(dense_loss=False, category_loss=False)
    shapes = networks.uniform(self.head.clone(**fields), self.features)
    self.assertNoCommonElements(shapes["params"], ("dense", "dense_classifier"))
    variables = {
        kind: {part: self.variables[kind][part] for part in tree}
        for kind, tree in shapes.items()
    }
    out = run(variables, **fields)
    self.assertSameElements(out, ("logits",))
    np.testing.assert_allclose(
        out["logits"], full["mask_logits"], rtol=1e-4, atol=1e-5
    )
    # As in the abstract, with all three losses.
    out = run(self.variables, prediction="masks")
    self.assertSameElements(out, ("logits", "category_logits", "dense_logits"))
    np.testing.assert_allclose(
        out["logits"], full["mask_logits"], rtol=1e-4, atol=1e-5
    )


class FCNSETest(parameterized.TestCase):

  def test_matches_equations_2_and_3(self):
    features = make_features()
    head = fcn_se.FCNSEHead(num_classes=5)
    variables = networks.uniform(head, features)
    params = variables["params"]
    self.assertEqual(params["squeeze"]["kernel"].shape, (6, 4))
    out = networks.evaluate(head, variables, features)["logits"]
    x = conv_bn_relu(features["stage4"], variables, "reduce")
    w = x.mean((1, 2), keepdims=True)
    w = w @ params["squeeze"]["kernel"] + params["squeeze"]["bias"]
    w = np.maximum(w, 0) @ params["excite"]["kernel"]
    w = 1 / (1 + np.exp(-w - params["excite"]["bias"]))
    self.assertGreater(np.std(w), 0.05)
    x = w * x + conv_bn_relu(x, variables, "conv")
    x = classify(x, params["classifier"])
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-4)


class CountsTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(name="resnet", depth=101), 21, 42_623_936, 56_628_706),
      (dict(name="resnet", depth=50), 21, 23_631_808, 37_636_578),
      (dict(name="resnet", depth=50), 59, 23_631_808, 37_704_902),
      (dict(name="efficientnet", variant="b7"), 59, 62_143_440, 63_486_334),
  )
  def test_num_params(self, backbone, n, base, expected):
    widths = (256, 512, 1024, 2048)
    if backbone["name"] == "efficientnet":
      widths = (48, 80, 224, 640)
    count = base
    for c in widths:
      # Two paths of a 1x1 and a 3x3 convolution in 2 groups, each with a batch
      # norm, and a classifier.
      path = (c * c // 4 + 9 * (c // 4) ** 2) // 2 + 2 * 2 * (c // 4)
      count += 2 * path + (c // 4) * n + n
    count += 4 * n * n + n  # Fusion.
    count += 9 * c * (c // 4) + 2 * (c // 4) + (c // 4) * n + n  # Dense branch.
    self.assertEqual(count, expected)
    model = networks.build(backbone, dict(name="sanet"), n)
    self.assertEqual(networks.num_params(model), expected)

  def test_num_params_of_fcn_se(self):
    # An FCN head, one more convolution and the gate.
    expected = 9_448_981 + (9 * 512 * 512 + 2 * 512) + (512 * 4 + 4)
    expected += 4 * 512 + 512
    model = networks.build(
        dict(name="resnet", depth=50), dict(name="fcn_se"), 21
    )
    self.assertEqual(networks.num_params(model), 23_631_808 + expected)
