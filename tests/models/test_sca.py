"""SCA: the paper's equation in plain loops, its hosts, its recipe."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import networks
import numpy as np

from configs.cityscapes import sca as cityscapes_config
from configs.voc import sca as voc_config
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.models.heads import fcn
from ctxseg_jax.models.heads import HEADS
from ctxseg_jax.models.heads import sca

READINGS = ("features", "logits", "scores")


def predict(x, params):
  """The dependency predictor: 3x3, ReLU, four dilated 3x3 in parallel."""

  def convolve(x, name, rate):
    layer = params[name]
    return networks.convolve(x, layer["kernel"], rate) + layer["bias"]

  hidden = np.maximum(convolve(x, "reduce", 1), 0)
  rates = enumerate((1, 2, 4, 8), start=1)
  return sum(convolve(hidden, f"branch{i}", rate) for i, rate in rates)


def aggregate(x, dependencies):
  """out = x + GAP(x) * D for every neuron."""
  return x + x.mean((1, 2), keepdims=True) * dependencies


class SCAHeadTest(parameterized.TestCase):

  def _head(self, reading):
    """Returns a head on an FCN of one convolution, its input and weights."""
    features = {"stage4": 0.5 + networks.normal(0, 2, 9, 7, 16)}
    host = fcn.FCNHead(num_classes=5, channels=4, dropout_rate=0.0)
    head = sca.SCAHead(num_classes=5, host=host, reading=reading, channels=8)
    variables = networks.uniform(head, features, kernels=0.3)
    return head, host, features, variables

  @parameterized.parameters(*READINGS)
  def test_matches_loops_over_the_equation(self, reading):
    head, host, features, variables = self._head(reading)
    params = variables["params"]
    theirs = {
        "params": params["host"],
        "batch_stats": variables["batch_stats"]["host"],
    }

    def classify(x):
      out = host.apply(theirs, {"stage4": jnp.asarray(x)}, train=False)
      return np.asarray(out["logits"])

    x = features["stage4"]
    predictor = params["predictor"]
    if reading == "features":
      expected = classify(aggregate(x, predict(x, predictor)))
    elif reading == "logits":
      scores = classify(x)
      expected = aggregate(scores, predict(scores, predictor))
    else:
      expected = aggregate(classify(x), predict(x, predictor))

    out = networks.evaluate(head, variables, features)

    self.assertSameElements(out, ["logits"])
    np.testing.assert_allclose(
        out["logits"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    # The module is no small correction of the host here.
    difference = np.abs(expected - classify(x)).max()
    self.assertGreater(difference, 0.1 * np.abs(expected).max())

  @parameterized.parameters((64, 0.08), (512, 0.2))
  def test_starts_near_the_identity(self, channels, most):
    # Rectified features of unit variance: what N(0, 0.01) adds to them grows
    # with their number, and with their scale.
    x = jax.random.normal(jax.random.key(0), (1, 16, 16, channels))
    x = jax.nn.relu(x)
    predictor = sca.DependencyPredictor(channels, 256, (1, 2, 4, 8), x.dtype)

    @jax.jit
    def add(x):
      dependencies, _ = predictor.init_with_output(jax.random.key(1), x)
      return sca.aggregate_context(x, dependencies) - x

    added = jnp.linalg.norm(add(x)) / jnp.linalg.norm(x)
    self.assertLess(float(added), most)
    self.assertGreater(float(added), 0.01)

  @parameterized.parameters(*READINGS)
  def test_gradients_reach_everything_from_the_start(self, reading):
    head, _, features, _ = self._head(reading)
    variables = networks.initialize(head, features)

    def loss(params, features):
      out = head.apply({**variables, "params": params}, features, train=False)
      weights = jax.random.normal(jax.random.key(1), out["logits"].shape)
      return jnp.sum(out["logits"] * weights)

    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        variables["params"], features
    )
    for path, x in jax.tree_util.tree_leaves_with_path(grads):
      name = jax.tree_util.keystr(path)
      self.assertTrue(np.all(np.isfinite(x)), name)
      self.assertGreater(np.abs(x).max(), 1e-5, name)

  def test_scores_of_another_size_are_refused(self):
    features = {
        "stage1": jnp.zeros((1, 8, 8, 4)),
        "stage4": jnp.zeros((1, 4, 4, 4)),
    }
    host = HEADS["deeplabv3plus"](num_classes=5, channels=4)
    head = sca.SCAHead(num_classes=5, host=host, reading="scores")
    with self.assertRaisesRegex(ValueError, r"\(8, 8\) and \(4, 4\)"):
      networks.abstract(head, features)


class HostsTest(parameterized.TestCase):

  @parameterized.parameters(*READINGS)
  def test_stands_on_the_backbone_of_the_quickstart(self, reading):
    head = dict(name="sca", host=dict(name="fcn"), reading=reading)
    model = networks.build(dict(name="shallow"), head, 7)
    out, _ = networks.abstract(model, (30, 41))
    self.assertEqual(out["logits"].shape, (1, 30, 41, 7))

  def test_what_else_the_host_returns_is_kept(self):
    host = dict(name="encnet", channels=8, num_codewords=2)
    head = dict(name="sca", host=host, reading="logits")
    model = networks.build(dict(name="shallow", channels=8), head)
    out, _ = networks.abstract(model, (16, 16))
    self.assertSameElements(out, ("logits", "se_logits"))

  @parameterized.parameters(
      (dict(name="fcm"), "model.head.host.name.*did you mean 'fcn'"),
      (dict(name="fcn", chanels=8), "model.head.host.chanels"),
      (dict(channels=8), "model.head.host.name"),
      (None, "missing key 'model.head.host'"),
  )
  def test_mistakes_in_the_host_are_named(self, host, message):
    head = dict(name="sca", host=host) if host else dict(name="sca")
    with self.assertRaisesRegex(errors.UserError, message):
      networks.build(dict(name="shallow"), head)


class RecipeTest(parameterized.TestCase):

  @parameterized.product(
      module=(voc_config, cityscapes_config),
      host=("", "deeplabv2", "deeplabv2_concat"),
  )
  def test_on_and_off_differ_in_the_module_alone(self, module, host):
    def parse(*variants):
      names = ",".join(filter(None, variants))
      return experiment.parse(module.get_config(names)).config

    on, off = parse(host), parse(host, "no_sca")
    self.assertEqual(off, parse("no_sca", host))
    head = on["model"]["head"]
    on["model"]["head"] = head.pop("host")
    self.assertEqual(on, off)
    self.assertEqual(
        head,
        dict(name="sca", reading="features", channels=256, rates=(1, 2, 4, 8)),
    )

  @parameterized.parameters(
      ("", 16), ("deeplabv2", 8), ("deeplabv2_concat", 16)
  )
  def test_hosts_have_the_output_strides_of_the_summary(self, host, stride):
    run = experiment.parse(voc_config.get_config(f"{host},no_sca".lstrip(",")))
    features, _ = networks.abstract(run.model.backbone, (32, 64))
    # DeepLab pools with padding, and reaches one pixel further.
    extra = host == "deeplabv2"
    _, height, width, _ = features["stage4"].shape
    self.assertEqual(height, 32 // stride + extra)
    self.assertEqual(width, 64 // stride + extra)
