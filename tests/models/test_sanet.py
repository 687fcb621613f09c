"""SANet and FCN-SE against loops over the paper's equations."""

from absl.testing import absltest
from absl.testing import parameterized
import flax
import jax
import jax.numpy as jnp
import networks
import numpy as np
import test_step

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


def randomized(variables, seed=0):
  """Replaces parameters and statistics by numbers away from 0 and 1."""
  rng = np.random.default_rng(seed)

  # Such that few ReLUs are closed, which would hide what is behind them.
  ranges = dict(var=(0.5, 2), mean=(-0.5, 0.5), scale=(0.5, 2), bias=(0, 1))

  def draw(path, x):
    kind = path[-1].key
    if kind == "kernel":
      x = rng.normal(size=x.shape) / np.prod(x.shape[:-1]) ** 0.5
    else:
      x = rng.uniform(*ranges[kind], x.shape)
    return x.astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, variables)


def make(module, *args):
  return randomized(networks.abstract(module, *args)[1])


# The equations, one pixel at a time.


def pool(x, size, reduce):
  h, w, c = x.shape
  out = np.zeros((-(-h // size), -(-w // size), c))
  for i in range(out.shape[0]):
    for j in range(out.shape[1]):
      cell = x[i * size : (i + 1) * size, j * size : (j + 1) * size]
      out[i, j] = reduce(cell.reshape(-1, c), axis=0)
  return out


def upsample(x, size):
  """Half-pixel bilinear interpolation with clamped edges."""
  h, w, c = x.shape
  out = np.zeros((*size, c))
  for i in range(size[0]):
    for j in range(size[1]):
      y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
      z = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
      for a in range(h):
        for b in range(w):
          share = max(0, 1 - abs(y - a)) * max(0, 1 - abs(z - b))
          out[i, j] += share * x[a, b]
  return out


def convolve(x, kernel, groups=1):
  k = kernel.shape[0]
  h, w, c = x.shape
  ins, outs = c // groups, kernel.shape[-1] // groups
  padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
  out = np.zeros((h, w, kernel.shape[-1]))
  for i in range(h):
    for j in range(w):
      for g in range(groups):
        window = padded[i : i + k, j : j + k, g * ins : (g + 1) * ins]
        weights = kernel[..., g * outs : (g + 1) * outs]
        out[i, j, g * outs : (g + 1) * outs] = np.einsum(
            "abc,abcd->d", window, weights
        )
  return out


def conv_bn_relu(x, variables, name, groups=1):
  params, stats = (variables[k][name] for k in ("params", "batch_stats"))
  x = convolve(x, params["conv"]["kernel"], groups)
  x = (x - stats["bn"]["mean"]) / np.sqrt(stats["bn"]["var"] + 1e-5)
  return np.maximum(x * params["bn"]["scale"] + params["bn"]["bias"], 0)


def squeeze_attention(x, variables, groups, size, reduce=np.mean):
  """Paper: Eqs. (4) and (5)."""
  args = dict(variables=variables, groups=groups)
  res = conv_bn_relu(
      conv_bn_relu(x, name="main1", **args), name="main2", **args
  )
  squeezed = pool(x, size, reduce)
  attn = conv_bn_relu(squeezed, name="attention1", **args)
  attn = conv_bn_relu(attn, name="attention2", **args)
  attn = upsample(attn, x.shape[:2])
  return attn * res + attn


def under(variables, name):
  return {k: variables[k][name] for k in variables if name in variables[k]}


class PoolTest(parameterized.TestCase):

  @parameterized.product(
      # 60 is the size of stage 4 for images of 480.
      size=((60, 17), (16, 8), (3, 5)),
      kind=("average", "max"),
  )
  def test_cells_count_real_pixels_only(self, size, kind):
    # All below 0: zeros beyond the edge would win, or pull the mean up.
    x = np.random.default_rng(0).uniform(-2, -1, (2, *size, 3))
    reduce = {"average": np.mean, "max": np.max}[kind]
    expected = np.stack([pool(image, 8, reduce) for image in x])
    actual = resizing.pool_cells(jnp.asarray(x, jnp.bfloat16), 8, kind)
    self.assertEqual(actual.dtype, jnp.float32)
    np.testing.assert_allclose(actual, expected, atol=1e-2)
    actual = resizing.pool_cells(jnp.asarray(x, jnp.float32), 8, kind)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)

  def test_sixty_pixels_make_eight_cells(self):
    self.assertEqual(
        resizing.pool_cells(jnp.zeros((1, 60, 60, 1)), 8, "average").shape,
        (1, 8, 8, 1),
    )


class SqueezeAttentionTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(), 2, np.mean), (dict(groups=1, pooling="max"), 1, np.max)
  )
  def test_matches_loops_over_equations_4_and_5(self, fields, groups, reduce):
    x = np.random.default_rng(0).normal(size=(2, 12, 9, 8)).astype(np.float32)
    module = sanet.SqueezeAttention(4, pool_size=5, **fields)
    variables = make(module, x)
    expected = np.stack(
        [squeeze_attention(image, variables, groups, 5, reduce) for image in x]
    )
    self.assertGreater(np.std(expected), 0.1)
    # A sigmoid would be bounded.
    self.assertGreater(np.max(expected), 1.0)
    np.testing.assert_allclose(
        module.apply(variables, x, train=False), expected, rtol=1e-4, atol=1e-4
    )

  def test_groups_that_do_not_divide_a_width_are_named(self):
    for channels, width in ((3, 8), (4, 7)):
      with self.assertRaisesRegex(ValueError, "groups=2.*channels"):
        make(sanet.SqueezeAttention(channels), jnp.zeros((1, 8, 8, width)))


class SANetHeadTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.features = make_features()
    self.head = sanet.SANetHead(num_classes=5, pool_size=4)
    self.variables = make(self.head, self.features)

  def test_masks_categories_and_prediction_match_the_paper(self):
    out = jax.jit(self.head.apply, static_argnames="train")(
        self.variables, self.features, train=False
    )
    params = self.variables["params"]

    def classify(x, layer):
      return x @ layer["kernel"][0, 0] + layer["bias"]

    for i in range(2):
      maps = {}
      for stage, features in self.features.items():
        x = squeeze_attention(
            features[i], under(self.variables, f"{stage}_attention"), 2, 4
        )
        maps[stage] = classify(x, params[f"{stage}_classifier"]["conv"])
      masks = np.concatenate([upsample(x, (12, 11)) for x in maps.values()], -1)
      masks = classify(masks, params["fusion"]["conv"])
      dense = conv_bn_relu(self.features["stage4"][i], self.variables, "dense")
      dense = classify(dense, params["dense_classifier"]["conv"])
      for name, expected in (
          ("mask_logits", masks),
          ("category_logits", masks.mean((0, 1))),
          ("dense_logits", dense),
          ("logits", dense + maps["stage4"]),
      ):
        np.testing.assert_allclose(
            out[name][i], expected, rtol=1e-3, atol=1e-3, err_msg=name
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

  def test_evaluation_computes_the_prediction_only(self):
    def flops(head, *names):
      variables = make(head, self.features)

      def run(variables, features):
        out = head.apply(variables, features, train=False)
        return [out[name] for name in names]

      lowered = jax.jit(run).lower(variables, self.features)
      return lowered.compile().cost_analysis()["flops"]

    everything = flops(self.head, "logits", "mask_logits", "category_logits")
    prediction = flops(self.head, "logits")
    masks = flops(self.head, "mask_logits")
    self.assertLess(prediction, 0.6 * everything)
    self.assertLess(masks, 0.8 * everything)

  def test_the_masks_can_be_the_prediction(self):
    def run(variables, **fields):
      head = self.head.clone(**fields)
      return jax.jit(lambda v: head.apply(v, self.features, train=False))(
          variables
      )

    full = run(self.variables)
    fields = dict(dense_loss=False, category_loss=False)
    shapes = make(self.head.clone(**fields), self.features)
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

  @parameterized.parameters(
      (dict(dense_loss=False), ("logits", "category_logits")),
      (dict(category_loss=False), ("logits", "mask_logits", "dense_logits")),
  )
  def test_outputs_that_are_left_out(self, fields, expected):
    out, _ = networks.abstract(self.head.clone(**fields), self.features)
    self.assertSameElements(out, expected)


class FCNSETest(absltest.TestCase):

  def test_matches_equations_2_and_3(self):
    features = make_features()
    head = fcn_se.FCNSEHead(num_classes=5)
    variables = make(head, features)
    params = variables["params"]
    self.assertEqual(params["squeeze"]["kernel"].shape, (6, 4))
    out = head.apply(variables, features, train=False)["logits"]
    for i, image in enumerate(features["stage4"]):
      x = conv_bn_relu(image, variables, "reduce")
      w = x.mean((0, 1))
      w = w @ params["squeeze"]["kernel"] + params["squeeze"]["bias"]
      w = np.maximum(w, 0) @ params["excite"]["kernel"]
      w = 1 / (1 + np.exp(-w - params["excite"]["bias"]))
      self.assertGreater(np.std(w), 0.05)
      x = w * x + conv_bn_relu(x, variables, "conv")
      x = x @ params["classifier"]["conv"]["kernel"][0, 0]
      x += params["classifier"]["conv"]["bias"]
      np.testing.assert_allclose(out[i], x, rtol=1e-4, atol=1e-4)


def count_params(backbone, head, n):
  return networks.num_params(networks.build(backbone, dict(name=head), n))


def path_params(c, n):
  """Of a squeeze-and-attention module on a stage, and its classifier."""
  # Two paths of a 1x1 and a 3x3 convolution in 2 groups, each with a batch
  # norm.
  path = (c * c // 4 + 9 * (c // 4) ** 2) // 2 + 2 * 2 * (c // 4)
  return 2 * path + (c // 4) * n + n


class CountsTest(parameterized.TestCase):

  @parameterized.parameters(
      (dict(name="resnet", depth=101), 21, 42_623_936, 56_628_706),
      (dict(name="resnet", depth=50), 21, 23_631_808, 37_636_578),
      (dict(name="resnet", depth=50), 59, 23_631_808, 37_704_902),
  )
  def test_num_params_with_resnets(self, backbone, n, base, expected):
    count = base
    count += sum(path_params(c, n) for c in (256, 512, 1024, 2048))
    count += 4 * n * n + n  # Fusion.
    count += 9 * 2048 * 512 + 2 * 512 + 512 * n + n  # Dense branch.
    self.assertEqual(count, expected)
    self.assertEqual(count_params(backbone, "sanet", n), expected)

  def test_num_params_with_efficientnet_b7(self):
    count = 62_143_440
    n = 59
    count += sum(path_params(c, n) for c in (48, 80, 224, 640))
    count += 4 * n * n + n + 9 * 640 * 160 + 2 * 160 + 160 * n + n
    backbone = dict(name="efficientnet", variant="b7")
    self.assertEqual(count_params(backbone, "sanet", n), count)

  def test_num_params_of_fcn_se(self):
    # An FCN head, one more convolution and the gate.
    expected = 9_448_981 + (9 * 512 * 512 + 2 * 512) + (512 * 4 + 4)
    expected += 4 * 512 + 512
    self.assertEqual(
        count_params(dict(name="resnet", depth=50), "fcn_se", 21),
        23_631_808 + expected,
    )


class StepTest(absltest.TestCase):

  def test_the_loss_has_the_papers_three_parts(self):
    model = dict(
        backbone=dict(name="shallow", channels=8),
        head=dict(name="sanet", channels=8, dropout_rate=0.0),
    )
    loss = dict(
        mask_logits=dict(loss="softmax_cross_entropy"),
        category_logits=dict(loss="presence_bce", weight=0.2),
        dense_logits=dict(loss="softmax_cross_entropy", weight=0.8),
    )
    step, state, put = test_step.make_step(1, model, loss)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (2, 32, 32)).astype(np.uint8)
    label[0, :9] = 255
    label[1][label[1] == 2] = 1  # A class that is not there.
    images = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    out, _ = networks.build(**model, num_classes=3).apply(
        {"params": state.params, **state.model_state},
        (images - np.float32(127)) / np.float32(60),
        train=True,
        mutable=["batch_stats"],
    )
    before = jax.device_get(state.params)
    batch = put({"image": images, "label": label})
    state, scalars = step(state, batch, jax.random.key(1))

    def cross_entropy(logits):
      logits = np.asarray(logits, np.float64)
      logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
      picked = np.take_along_axis(logp, (label % 255)[..., None], -1)[..., 0]
      return -picked[label != 255].mean()

    p = 1 / (1 + np.exp(-np.asarray(out["category_logits"], np.float64)))
    present = np.array([[1, 1, 1], [1, 1, 0]])
    categories = -np.log(np.where(present, p, 1 - p)).mean()
    expected = cross_entropy(out["mask_logits"]) + 0.2 * categories
    expected += 0.8 * cross_entropy(out["dense_logits"])
    np.testing.assert_allclose(scalars["loss/total"], expected, rtol=1e-4)
    changed = jax.tree.map(lambda a, b: np.any(a != b), before, state.params)
    for path, x in flax.traverse_util.flatten_dict(changed, sep="/").items():
      self.assertTrue(x, path)


if __name__ == "__main__":
  absltest.main()
