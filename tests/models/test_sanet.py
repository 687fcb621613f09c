"""SANet and FCN-SE against loops over the paper's equations."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import networks
import numpy as np

from ctxseg_jax.models import macs
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


def conv_bn(x, variables, name, groups=1):
  params, stats = (variables[k][name] for k in ("params", "batch_stats"))
  x = networks.convolve(x, params["conv"]["kernel"], groups=groups)
  x = (x - stats["bn"]["mean"]) / np.sqrt(stats["bn"]["var"] + 1e-5)
  return x * params["bn"]["scale"] + params["bn"]["bias"]


def conv_bn_relu(*args):
  return np.maximum(conv_bn(*args), 0)


def classify(x, layer):
  return x @ layer["conv"]["kernel"][0, 0] + layer["conv"]["bias"]


def squeeze_attention(
    x, variables, size, *, groups=(2, 1), main_relu=False, reduce=np.mean
):
  """Paper: Eqs. (4) and (5)."""
  res = conv_bn_relu(x, variables, "main1", groups[0])
  res = conv_bn(res, variables, "main2", groups[1])
  if main_relu:
    res = np.maximum(res, 0)
  attn = pool(x, size, reduce)
  for i in (1, 2):
    attn = conv_bn_relu(attn, variables, f"attention{i}", groups[i - 1])
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
      (dict(), np.mean),
      (dict(groups=(1, 2), main_relu=True, pooling="max"), np.max),
  )
  def test_matches_loops_over_equations_4_and_5(self, fields, reduce):
    x = np.random.default_rng(0).normal(size=(2, 12, 9, 8)).astype(np.float32)
    module = sanet.SqueezeAttention((6, 4), pool_size=5, **fields)
    variables = networks.uniform(module, x)
    reading = {k: v for k, v in fields.items() if k != "pooling"}
    expected = squeeze_attention(x, variables, 5, reduce=reduce, **reading)
    self.assertGreater(np.std(expected), 0.1)
    # A sigmoid would be bounded.
    self.assertGreater(np.max(expected), 1.0)
    out = networks.evaluate(module, variables, x)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)

  def test_groups_that_do_not_divide_a_width_are_named(self):
    for groups, widths, channels, message in (
        ((2, 1), (3, 5), 8, "a width of 3, of convolution 1; set groups.0."),
        ((2, 1), (4, 5), 7, "a width of 7, of convolution 1"),
        ((2, 2), (4, 5), 8, "a width of 5, of convolution 2; set groups.1."),
    ):
      module = sanet.SqueezeAttention(widths, groups=groups)
      with self.assertRaisesRegex(ValueError, message):
        networks.abstract(module, jnp.zeros((1, 8, 8, channels)))


class SANetHeadTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.features = make_features()
    self.head = sanet.SANetHead(num_classes=5, pool_size=4)
    self.variables = networks.uniform(self.head, self.features)

  @parameterized.parameters(
      dict(), dict(class_scores="classifier", category_from="dense")
  )
  def test_masks_categories_and_prediction_match_the_paper(self, **fields):
    head = self.head.clone(supervise_stages=True, **fields)
    variables = networks.uniform(head, self.features)
    out = networks.evaluate(head, variables, self.features)
    params = variables["params"]
    maps = {}
    for stage, x in self.features.items():
      attention = under(variables, f"{stage}_attention")
      x = squeeze_attention(x, attention, 4)
      if fields:
        x = classify(x, params[f"{stage}_classifier"])
      maps[stage] = x
    masks = np.concatenate([upsample(x, (12, 11)) for x in maps.values()], -1)
    masks = classify(masks, params["fusion"])
    dense = conv_bn_relu(self.features["stage4"], variables, "dense")
    dense = classify(dense, params["dense_classifier"])
    expected = dict(
        mask_logits=masks,
        category_logits=(dense if fields else masks).mean((1, 2)),
        dense_logits=dense,
        logits=dense + maps["stage4"],
        **{f"{stage}_mask_logits": x for stage, x in maps.items()},
    )
    self.assertSameElements(out, expected)
    for name, x in expected.items():
      np.testing.assert_allclose(
          out[name], x, rtol=1e-3, atol=1e-3, err_msg=name
      )

  def test_gradients_reach_what_each_output_is_made_of(self):
    modules = {f"{stage}_attention" for stage in SIZES}
    fourth = {"stage4_attention"}
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
    self.assertSameElements(out, ("logits", "mask_logits"))
    np.testing.assert_allclose(
        out["logits"], full["mask_logits"], rtol=1e-4, atol=1e-5
    )
    # As in the abstract, with all three losses: what they supervise stays.
    out = run(self.variables, prediction="masks")
    self.assertSameElements(out, full)
    np.testing.assert_allclose(
        out["logits"], full["mask_logits"], rtol=1e-4, atol=1e-5
    )

  def test_categories_of_a_dense_branch_that_is_not_there_are_refused(self):
    head = self.head.clone(dense_loss=False, category_from="dense")
    with self.assertRaisesRegex(ValueError, "category_from='dense' needs"):
      networks.abstract(head, self.features)


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
    residual = conv_bn_relu(x, variables, "conv1")
    x = w * x + conv_bn(residual, variables, "conv2")
    x = classify(x, params["classifier"])
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-4)


class CountsTest(parameterized.TestCase):

  # The table of `heads/sanet.py`, and below it widths and classes of others.
  @parameterized.parameters(
      ((1, 3), (2, 1), "convolution", 53.83, 227.7, 200.2),
      ((1, 1), (2, 1), "classifier", 54.19, 228.4, 200.8),
      ((1, 3), (2, 2), "classifier", 56.63, 233.7, 205.4),
      ((1, 3), (2, 1), "classifier", 59.76, 240.4, 211.3),
      ((3, 3), (2, 1), "convolution", 64.98, 251.7, 221.3),
      ((1, 1), (1, 1), "classifier", 55.58, 231.4, 203.4),
  )
  def test_readings_with_resnet_101(self, kernels, groups, scores, *expected):
    head = sanet.SANetHead(
        21, kernel_sizes=kernels, groups=groups, class_scores=scores
    )
    # Parameters and MACs of the backbone at both sizes are those of
    # `test_describe`.
    found = [42_623_936 / 1e6]
    for size, giga in ((512, 185.08), (480, 162.67)):
      features = {
          f"stage{i}": jax.ShapeDtypeStruct(
              (1, n, n, 2 ** (7 + i)), jnp.float32
          )
          for i, n in enumerate((size // 4, *3 * (size // 8,)), start=1)
      }
      variables = jax.eval_shape(
          lambda x: head.init(jax.random.key(0), x, train=False), features
      )
      counts, _, _ = macs.count(
          lambda v, x: head.apply(v, x, train=False), variables, features
      )
      found.append(giga + counts.total() / 1e9)
    found[0] += networks.count(variables["params"]) / 1e6
    np.testing.assert_allclose(found, expected, atol=0.055)
    self.assertAlmostEqual(found[0], expected[0], delta=0.0051)

  @parameterized.parameters(
      ((256, 512, 1024, 2048), 21),
      ((256, 512, 1024, 2048), 59),
      ((48, 80, 224, 640), 59),  # EfficientNet-B7.
  )
  def test_num_params(self, widths, n):
    count = 0
    for c in widths:
      # Two paths of a 1x1 convolution in 2 groups and of a 3x3 one to the
      # classes, each with a batch norm.
      path = (c * c // 4) // 2 + 9 * (c // 4) * n + 2 * (c // 4) + 2 * n
      count += 2 * path
    count += 4 * n * n + n  # Fusion.
    count += 9 * c * (c // 4) + 2 * (c // 4) + (c // 4) * n + n  # Dense branch.
    features = {
        f"stage{i}": jnp.zeros((1, 8, 8, c))
        for i, c in enumerate(widths, start=1)
    }
    self.assertEqual(networks.num_params(sanet.SANetHead(n), features), count)

  def test_num_params_of_fcn_se(self):
    # An FCN head, two more convolutions and the gate.
    expected = 9_448_981 + 2 * (9 * 512 * 512 + 2 * 512) + (512 * 4 + 4)
    expected += 4 * 512 + 512
    features = {"stage4": jnp.zeros((1, 8, 8, 2048))}
    self.assertEqual(
        networks.num_params(fcn_se.FCNSEHead(21), features), expected
    )
