"""EncNet's CIFAR-10 networks, and classification as a task."""

import csv
import json
import pathlib
import shutil
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import chex
import flax
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import networks
import numpy as np
from PIL import Image
import pytest
import steps
import test_configs
import tiny

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data.datasets import cifar10_stand_in
from ctxseg_jax.evaluation import classification
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation import predictions
from ctxseg_jax.evaluation.tasks import TASKS
from ctxseg_jax.models.backbones import cifar_resnet
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.training import step as step_lib

# Published, in millions: 2.7 (2.78 cut short), 2.8, 3.5, none, 16.8. The last
# row draws its smoothing factors and has 6 * 32 parameters less.
NUM_PARAMS = {
    ("preactivation", 4, 16): 2_777_482,
    ("squeeze_excitation", 4, 16): 2_800_322,
    ("encoding", 4, 16): 3_514_250,
    ("encoding", 4, 32): 4_206_058,
    ("encoding", 8, 32): 16_788_234,
    ("encoding_drop", 8, 32): 16_788_234 - 6 * 32,
}

SPEC = cifar10_stand_in.SPEC


def section(block="encoding", widen=1, num_codewords=4):
  """Returns the section of a config for one of the networks."""
  options = dict(block=block, widen=widen, num_codewords=num_codewords)
  return dict(
      backbone=dict(name="cifar_resnet", **options), head=dict(name="pooled")
  )


def build(*fields, dtype="float32", **options):
  config = section(*fields, **options) | dict(dtype=dtype)
  return experiment.build_model(config, 10, bn_axis_name=step_lib.AXIS)


def make_mesh(num_devices):
  return jax.sharding.Mesh(
      np.array(jax.devices()[:num_devices]), (step_lib.AXIS,)
  )


def noisy(tree, seed=0, scale=0.1):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
      lambda x: np.asarray(x + scale * rng.normal(size=x.shape), np.float32),
      tree,
  )


# The layers in plain numpy, for one image [H, W, C] in evaluation.


def conv_loops(x, params, stride=1):
  kernel = params["kernel"]
  size = kernel.shape[0]
  pad = (size - 1) // 2
  x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
  rows = range(0, x.shape[0] - size + 1, stride)
  cols = range(0, x.shape[1] - size + 1, stride)
  out = np.array(
      [
          [np.tensordot(x[i : i + size, j : j + size], kernel, 3) for j in cols]
          for i in rows
      ]
  )
  return out + params.get("bias", 0.0)


def norm_loops(x, params, stats):
  x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
  return x * params["scale"] + params["bias"]


def dense_loops(x, params):
  return x @ params["kernel"] + params["bias"]


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def encoding_gate_loops(x, params, stats, scale):
  y = conv_loops(x, params["reduce_conv"])
  y = norm_loops(y, params["reduce_bn"], stats["reduce_bn"])
  y = np.maximum(y, 0).reshape(-1, y.shape[-1])
  codewords = params["codewords"]
  encoded = np.zeros_like(codewords)
  for pixel in y:
    residuals = pixel - codewords
    weights = np.exp(scale * np.sum(residuals**2, axis=1))
    weights /= weights.sum()
    for k, weight in enumerate(weights):
      encoded[k] += weight * residuals[k]
  encoded = encoded.ravel()
  encoded /= max(np.linalg.norm(encoded), 1e-8)
  return x * sigmoid(dense_loops(encoded, params["excite"]))


def squeeze_gate_loops(x, params):
  y = np.maximum(dense_loops(x.mean(axis=(0, 1)), params["squeeze"]), 0)
  return x * sigmoid(dense_loops(y, params["excite"]))


class BlocksTest(parameterized.TestCase):

  def _apply(self, block, x, channels=16, stride=2):
    backbone = cifar_resnet.CifarResNet(block=block, num_codewords=4)
    module = backbone._block_type()(
        channels=channels, stride=stride, norm=Norm(), dtype=jnp.float32
    )
    variables = noisy(networks.drawn(module, x))
    stats = variables.get("batch_stats", {})
    variables["batch_stats"] = jax.tree.map(np.abs, stats)
    out = module.apply(variables, x, train=False)
    as_float64 = jax.tree.map(lambda v: v.astype(np.float64), variables)
    return out[0], as_float64["params"], as_float64["batch_stats"]

  def _image(self, channels=8):
    rng = np.random.default_rng(1)
    return rng.normal(size=(1, 6, 6, channels)).astype(np.float32)

  @parameterized.parameters((8, 16, 2), (16, 16, 1))
  def test_pre_activation(self, channels_in, channels, stride):
    x = self._image(channels_in)
    out, params, stats = self._apply("preactivation", x, channels, stride)
    x = x[0].astype(np.float64)
    y = np.maximum(norm_loops(x, params["bn1"], stats["bn1"]), 0)
    y = conv_loops(y, params["conv1"], stride)
    y = np.maximum(norm_loops(y, params["bn2"], stats["bn2"]), 0)
    y = conv_loops(y, params["conv2"])
    # Of x itself, not of its activation; without batch norm.
    if stride == 2:
      x = conv_loops(x, params["shortcut"], stride)
    np.testing.assert_allclose(out, x + y, rtol=1e-4, atol=1e-4)

  @parameterized.parameters("squeeze_excitation", "encoding", "encoding_drop")
  def test_gated(self, block):
    x = self._image()
    out, params, stats = self._apply(block, x)
    x = x[0].astype(np.float64)
    y = x
    for name, stride in (("conv1", 2), ("conv2", 1)):
      y = conv_loops(y, params[name]["conv"], stride)
      y = norm_loops(y, params[name]["bn"], stats[name]["bn"])
      if name == "conv1":
        y = np.maximum(y, 0)
    if block == "squeeze_excitation":
      y = squeeze_gate_loops(y, params["gate"])
    else:
      # -0.5 of a distribution whose draws nothing keeps.
      scale = params["gate"].get("scale", np.full(4, -0.5))
      self.assertEqual("scale" in params["gate"], block == "encoding")
      y = encoding_gate_loops(y, params["gate"], stats["gate"], scale)
    y += conv_loops(x, params["shortcut"], 2)
    np.testing.assert_allclose(out, np.maximum(y, 0), rtol=1e-4, atol=1e-4)

  def test_normalising_zeros_has_a_finite_gradient(self):
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(
        cifar_resnet.l2_normalize(x), [[0, 0], [0.6, 0.8]], rtol=1e-6
    )
    grads = jax.grad(lambda x: jnp.sum(cifar_resnet.l2_normalize(x)))(x)
    self.assertTrue(np.all(np.isfinite(grads)))

  def test_drawn_scales_follow_the_key_in_training_only(self):
    gate = cifar_resnet.EncodingGate(
        num_codewords=4, random_scale=True, norm=Norm(), dtype=jnp.float32
    )
    x = self._image()
    variables = networks.drawn(gate, x)
    self.assertNotIn("scale", variables["params"])

    def run(train, key):
      kw = dict(train=train, rngs={"dropout": jax.random.key(key)})
      return np.asarray(
          gate.apply(variables, x, mutable=["batch_stats"], **kw)[0]
      )

    np.testing.assert_array_equal(run(True, 1), run(True, 1))
    self.assertFalse(np.array_equal(run(True, 1), run(True, 2)))
    np.testing.assert_array_equal(run(False, 1), run(False, 2))
    # Without a key at all, too.
    np.testing.assert_array_equal(
        run(False, 1), gate.apply(variables, x, train=False)
    )


def with_few_blocks():
  """Halves the networks, hence compilation, where depth does not matter."""
  return absltest.mock.patch.object(cifar_resnet, "BLOCKS_PER_GROUP", 1)


class NetworksTest(parameterized.TestCase):

  @parameterized.parameters(*NUM_PARAMS)
  def test_published_parameter_counts(self, *fields):
    model = build(*fields)
    self.assertEqual(networks.num_params(model, (32, 32)), NUM_PARAMS[fields])
    out, _ = networks.abstract(model, (32, 32))
    self.assertEqual(out["logits"].shape, (1, 10))
    self.assertEqual(out["logits"].dtype, jnp.float32)

  def test_every_stage_has_the_size_of_the_paper(self):
    features, _ = networks.abstract(cifar_resnet.CifarResNet(), (32, 32))
    self.assertEqual(
        {name: x.shape for name, x in features.items()},
        {
            "stem": (1, 32, 32, 64),
            "stage1": (1, 32, 32, 64),
            "stage2": (1, 16, 16, 128),
            "stage3": (1, 8, 8, 256),
        },
    )

  @parameterized.parameters("preactivation", "encoding")
  @with_few_blocks()
  def test_every_parameter_but_cancelled_biases_has_a_gradient(self, block):
    model = build(block)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = networks.uniform(model, (8, 8), kernels=0.2)
    params = variables.pop("params")
    mesh = make_mesh(1)
    probe = jax.random.normal(jax.random.key(1), (4, 10))

    def loss(params):
      out, _ = model.apply(
          {"params": params, **variables},
          x,
          train=True,
          mutable=["batch_stats"],
          rngs={"dropout": jax.random.key(1)},
      )
      return jnp.sum(out["logits"] * probe)

    kw = dict(mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    grads = jax.jit(jax.shard_map(jax.grad(loss), **kw))(params)
    # A batch norm takes away what a bias before it adds: also through the
    # sums of a pre-activation network, whose last layer is one.
    cancelled = {
        "preactivation": ["stage2_block1/shortcut", "stage3_block1/shortcut"],
        "encoding": [f"stage{i}_block1/gate/reduce_conv" for i in (1, 2, 3)],
    }[block]
    flat = flax.traverse_util.flatten_dict(grads, sep="/")
    found = [path for path, x in flat.items() if np.abs(x).max() < 2e-5]
    self.assertSameElements(
        found, [f"backbone/{name}/bias" for name in ("stem_conv", *cancelled)]
    )

  @pytest.mark.slow
  @with_few_blocks()
  def test_bfloat16_stays_near_float32(self):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = networks.drawn(build(), (8, 8))
    exact, rough = jax.jit(
        lambda v: [
            build(dtype=dtype).apply(v, x)["logits"]
            for dtype in ("float32", "bfloat16")
        ]
    )(variables)
    self.assertLess(np.abs(exact - rough).max(), 0.1 * np.std(exact))

  @parameterized.parameters(
      (dict(block="encodng"), "block: expected one of .encoding.*encodng"),
      (dict(widen=0), "widen: .*at least 1, got 0"),
      (dict(num_codewords=0), "num_codewords: .*at least 1, got 0"),
  )
  def test_values_that_do_not_exist_are_one_line(self, fields, message):
    with self.assertRaisesRegex(errors.UserError, message):
      build(**fields)


LOSS = dict(logits=dict(loss="softmax_cross_entropy"))


class StepTest(absltest.TestCase):

  @with_few_blocks()
  @pytest.mark.slow
  def test_2_devices_do_as_one(self):
    results = []
    batch = steps.make_batch(size=8)
    batch["label"] = np.arange(8, dtype=np.uint8) % steps.NUM_CLASSES
    for num_devices in (1, 2):
      step, state, put = steps.make_step(num_devices, section(), LOSS)
      state, scalars = step(state, put(batch), jax.random.key(1))
      results.append(jax.device_get((state.params, state.model_state)))
      self.assertAlmostEqual(
          float(scalars["loss/total"]), float(scalars["loss/logits"])
      )
    chex.assert_trees_all_close(*results, rtol=2e-3, atol=2e-4)

  def test_maps_of_scores_do_not_fit_classes(self):
    head = dict(name="fcn", channels=8)
    model = dict(backbone=dict(name="shallow", channels=8), head=head)
    step, state, _ = steps.make_step(1, model, LOSS)
    batch = steps.make_batch() | {"label": np.zeros(8, np.uint8)}
    with self.assertRaisesRegex(errors.UserError, "maps of classes"):
      step(state, batch, jax.random.key(0))


class ListSource:
  """Examples in memory: 37, a number that divides over nothing."""

  def __init__(self):
    rng, count = np.random.default_rng(0), 37
    # Of different colours: noise alone looks the same to an average.
    colors = rng.integers(0, 256, (count, 1, 1, 3))
    noise = rng.integers(-40, 40, (count, 16, 16, 3))
    self.images = np.clip(colors + noise, 0, 255).astype(np.uint8)
    self.labels = rng.integers(0, 10, count).astype(np.uint8)

  def __len__(self):
    return len(self.images)

  def __getitem__(self, i):
    image, label = self.images[i], np.array(self.labels[i])
    return {"image": image, "label": label, "name": f"{i}"}

  def sizes(self):
    return np.full((len(self), 2), 16)


class EvaluateTest(absltest.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enterClassContext(with_few_blocks())
    cls.model = build("preactivation")
    variables = networks.uniform(cls.model, (16, 16), kernels=0.1)
    # Of the source; without the mean one class would take all.
    x = (ListSource().images.astype(np.float32) - 127) / 60
    logits = jax.jit(cls.model.apply)(variables, x)["logits"]
    mean = logits.mean(axis=0)
    variables["params"]["head"]["classifier"]["bias"] -= mean
    cls.variables, cls.expected = variables, (logits - mean).argmax(axis=-1)

  def _run(self, num_devices, batch_size=3, **kw):
    mesh = make_mesh(num_devices)
    predictor = classification.Predictor(
        self.model,
        mesh,
        mean=(127.0,) * 3,
        std=(60.0,) * 3,
        settings=classification.Settings(batch_size),
        crop_size=(16, 16),
    )
    variables = jax.device_put(self.variables, NamedSharding(mesh, P()))
    return evaluate.evaluate(
        predictor, variables, ListSource(), SPEC, split="test", **kw
    )

  @pytest.mark.slow
  def test_integers_are_equal_on_1_2_and_8_devices_and_to_a_plain_loop(self):
    expected = np.zeros((10, 10), int)
    labels = ListSource().labels
    for label, prediction in zip(labels, self.expected, strict=True):
      expected[label, prediction] += 1
    self.assertGreater((expected.sum(axis=0) > 0).sum(), 3)
    for num_devices, batch_size in ((1, 3), (1, 64), (2, 3), (8, 3), (8, 1)):
      report, _ = self._run(num_devices, batch_size)
      np.testing.assert_array_equal(report["confusion_matrix"], expected)
      self.assertEqual(report["num_images"], 37)
      self.assertEqual(report["compilations"], 1)
    self.assertAlmostEqual(report["accuracy"], np.trace(expected) / 37)

  def test_the_report_and_its_texts(self):
    report, kept = self._run(2, keep=(0, 36))
    line = evaluate.summary(report)
    self.assertIn(f"accuracy {100 * report['accuracy']:.2f}, error", line)
    self.assertIn("37 images of cifar10_stand_in test", line)
    self.assertNotIn("protocol", line)
    table = evaluate.describe(report | {"step": 3})
    for name in SPEC.class_names:
      self.assertIn(name, table)
    json.dumps(report)
    self.assertSameElements(kept, (0, 36))
    image, label, prediction, name = kept[36]
    self.assertEqual((label, name), (ListSource().labels[36], "36"))
    self.assertEqual(prediction.shape, ())
    picture = TASKS["classification"].picture(image, label, prediction, SPEC)
    self.assertEqual((picture.dtype, picture.shape[1]), (np.uint8, 384))

  def test_scores_by_hand(self):
    scores = metrics.accuracy_scores([[3, 1, 0], [2, 2, 0], [0, 0, 0]])
    self.assertEqual(scores["accuracy"], 5 / 8)
    self.assertEqual(scores["error_rate"], 3 / 8)
    np.testing.assert_array_equal(scores["class_accuracy"], [0.75, 0.5, np.nan])


class ConfigTest(parameterized.TestCase):

  def _config(self):
    path = "configs/cifar10/encnet.py"
    return test_configs.load(path).get_config("smoke").to_dict()

  @parameterized.parameters(
      ("data", "scale_range", (1.0, 2.0), "data.scale_range"),
      ("data", "rotation", 5.0, "data.rotation"),
      ("eval", "scales", (1.0,), "eval.scales"),
      ("eval", "protocol", "mmseg", "eval.protocol"),
  )
  def test_keys_of_segmentation_are_refused(self, section, key, value, message):
    config = self._config()
    config[section][key] = value
    with self.assertRaisesRegex(errors.UserError, f"'{message}'.*known here"):
      experiment.parse(config)

  def test_keys_of_classification_are_refused_in_segmentation(self):
    config = test_configs.load("configs/quickstart.py").get_config().to_dict()
    config["data"]["padding"] = 4
    with self.assertRaisesRegex(errors.UserError, "data.padding"):
      experiment.parse(config)


class RunTest(absltest.TestCase):
  """A run of four steps through the real loop."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(folder)
    cls.enterClassContext(with_few_blocks())
    cls.enterClassContext(tiny.on_one_device())
    path = "configs/cifar10/encnet.py"
    cls.config = test_configs.load(path).get_config("32k128d,smoke")
    cls.config.data.data_dir = str(cls.folder / "data")
    cls.config.data.eval_split = "test[:24]"
    cls.config.eval.batch_size_per_device = 3
    cls.config.model.backbone.update(num_codewords=4, widen=1)
    cls.config.eval_every = 2
    experiment.train_and_evaluate(cls.config, str(cls.folder / "run"))

  def test_it_writes_what_a_run_writes(self):
    run = self.folder / "run"
    accuracies = []
    for step in (2, 4):
      report = json.loads((run / "eval" / f"{step}.json").read_text())
      self.assertEqual(np.sum(report["confusion_matrix"]), 24)
      accuracies.append(report["accuracy"])
    best = [p.name for p in (run / "best").iterdir()]
    self.assertEqual(best, ["4" if accuracies[1] > accuracies[0] else "2"])
    self.assertLen(list((run / "predictions").glob("*.png")), 8)
    self.assertTrue((run / "curves.png").is_file())

  @pytest.mark.slow
  def test_a_run_that_lost_its_last_steps_ends_alike(self):
    resumed = self.folder / "resumed"
    shutil.copytree(self.folder / "run", resumed)
    shutil.rmtree(resumed / "checkpoints" / "4")
    experiment.train_and_evaluate(self.config, str(resumed))
    run = self.folder / "run"
    # The scales drawn in steps 3 and 4 included.
    self.assertEqual(tiny.digest(resumed, 4), tiny.digest(run, 4))
    self.assertEqual(tiny.losses(resumed), tiny.losses(run))
    self.assertEqual(tiny.evaluations(resumed), tiny.evaluations(run))

  def test_predictions_are_those_of_the_network(self):
    trained = experiment.load(self.folder / "run", "last")
    predictor = trained.predictor()
    photos = self.folder / "photos"
    photos.mkdir()
    drawn = [cifar10_stand_in.draw("test", i)[0] for i in range(5)]
    for i, image in enumerate(drawn):
      Image.fromarray(image).save(photos / f"{i}.png")
    Image.new("RGB", (70, 50)).save(photos / "photo.jpg")
    paths = predictions.list_images(str(photos))
    count = trained.task.write(
        predictor,
        trained.variables,
        paths,
        self.folder / "out",
        trained.spec,
        probabilities=True,
    )
    self.assertEqual(count, 6)
    with open(self.folder / "out" / "predictions.csv") as file:
      rows = list(csv.DictReader(file))
    self.assertEqual([row["image"] for row in rows], [str(p) for p in paths])
    data = trained.config["data"]
    x = (np.array(drawn, np.float32) - data["mean"]) / data["std"]
    logits = jax.jit(trained.model.apply)(
        trained.variables, x.astype(np.float32)
    )["logits"]
    expected = jax.nn.softmax(logits)
    for row, probabilities in zip(rows, expected, strict=False):
      found = [float(row[name]) for name in trained.spec.class_names]
      np.testing.assert_allclose(found, probabilities, atol=1e-5)
      best = int(np.argmax(probabilities))
      self.assertEqual(row["class"], trained.spec.class_names[best])

  def test_an_overlay_is_refused(self):
    with self.assertRaisesRegex(errors.UserError, "--opacity"):
      predictions.write_classes(
          None, None, [], self.folder / "none", SPEC, opacity=0.5
      )


if __name__ == "__main__":
  absltest.main()
