"""MFNet: loops over its equation, warm-up, gradients, the fixed map size."""

import functools

from absl.testing import parameterized
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from networks import abstract
from networks import initialize
from networks import normal
from networks import uniform
import numpy as np
import pytest
import steps
import test_segmentation

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.models import decoder
from ctxseg_jax.models import layers
from ctxseg_jax.models.heads import mfnet

STEP = dict(
    model=dict(
        backbone=dict(name="shallow", channels=8),
        head=dict(
            name="mfnet",
            channels=8,
            rank=3,
            map_size=(4, 4),
            dropout_rate=0.0,
            decoder_dropout_rate=0.0,
        ),
    ),
    loss=dict(
        logits=dict(loss="softmax_cross_entropy"),
        reconstruction_residual=dict(loss="mean_squared_residual", weight=0.1),
    ),
)


def make_head(**fields):
  fields = dict(rank=3, map_size=(3, 5)) | fields
  return mfnet.MFHead(
      num_classes=3,
      channels=6,
      low_channels=4,
      dropout_rate=0.0,
      decoder_dropout_rate=0.0,
      **fields,
  )


def make_features():
  return {"stage1": normal(0, 2, 6, 10, 4), "stage4": normal(1, 2, 3, 5, 8)}


class Rest(nn.Module):
  """What the head does with what it decodes."""

  @nn.compact
  def __call__(self, x, low):
    x = layers.ConvBNAct(6, 1, name="conv2")(x, train=True)
    # The layers are this module's; only the fields of the head are read.
    return decoder.decode(make_head(parent=None), x, low, train=True)


def make_variables(head, features, switch=1.0):
  variables = uniform(head, features, kernels=0.5)
  return {**variables, "switches": {"low_rank": jnp.float32(switch)}}


@functools.partial(jax.jit, static_argnums=0)
def apply(head, variables, features):
  state = [k for k in variables if k != "params"]
  return head.apply(variables, features, train=True, mutable=state)[0]


class MFHeadTest(parameterized.TestCase):

  @parameterized.parameters(0.0, 1.0)
  def test_what_is_decoded_matches_loops(self, switch):
    head, features = make_head(), make_features()
    variables = make_variables(head, features, switch)
    params = jax.tree.map(np.asarray, variables["params"])
    x = features["stage4"].astype(np.float64)
    decoded = x.copy()
    residual = np.zeros((2, 15, 8))
    for b, row, col in np.ndindex(2, 3, 5):
      n = 5 * row + col
      projected = x[b, row, col] @ params["conv1"]["kernel"]
      projected = projected + params["conv1"]["bias"]
      low_rank = sum(params["y"][:, r] * params["z"][r, n] for r in range(3))
      residual[b, n] = projected - low_rank
      if switch:
        decoded[b, row, col] = np.maximum(low_rank, 0.0) + projected
    out = apply(head, variables, features)
    np.testing.assert_allclose(
        out["reconstruction_residual"], residual, rtol=1e-4, atol=1e-4
    )
    expected, _ = jax.jit(Rest().apply, static_argnames="mutable")(
        {k: variables[k] for k in ("params", "batch_stats")},
        decoded.astype(np.float32),
        features["stage1"],
        mutable="batch_stats",
    )
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-4, atol=1e-4)

  def test_factors_start_within_the_bounds_of_the_code(self):
    head = make_head(reconstruction_loss=False)
    params = initialize(head, make_features())["params"]
    for name, shape in (("y", (8, 3)), ("z", (3, 15))):
      self.assertEqual(params[name].shape, shape)
      bound = params[name].size ** -0.5
      self.assertBetween(np.abs(params[name]).max(), 0.6 * bound, bound)
      self.assertLess(params[name].min(), -0.5 * bound)

  @parameterized.parameters(
      ("low_rank", "features"), ("low_rank", "projection"), ("sum", "features")
  )
  def test_readings_of_the_report(self, decodes, reconstructs):
    head = make_head(decodes=decodes, reconstructs=reconstructs)
    features = make_features()
    variables = make_variables(head, features)
    params = variables["params"]
    x = features["stage4"]
    low_rank = (params["y"] @ params["z"]).T  # [N, C].
    decoded = np.broadcast_to(low_rank.reshape(3, 5, 8), x.shape)
    projected = None
    # Without a use there are no weights.
    if (decodes, reconstructs) == ("low_rank", "features"):
      self.assertNotIn("conv1", params)
    else:
      projected = x @ params["conv1"]["kernel"] + params["conv1"]["bias"]
    if decodes == "sum":
      decoded = projected + np.maximum(decoded, 0.0)
    target = x if reconstructs == "features" else projected
    out = apply(head, variables, features)
    np.testing.assert_allclose(
        out["reconstruction_residual"],
        target.reshape(2, 15, 8) - low_rank,
        rtol=1e-4,
        atol=1e-4,
    )
    expected, _ = jax.jit(Rest().apply, static_argnames="mutable")(
        {
            "params": {k: v for k, v in params.items() if k not in ("y", "z")},
            "batch_stats": variables["batch_stats"],
        },
        decoded.astype(np.float32),
        features["stage1"],
        mutable="batch_stats",
    )
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-4, atol=1e-4)

  def test_factors_of_the_report_are_of_a_standard_normal(self):
    head = make_head(factor_init="normal", rank=64, map_size=(15, 15))
    features = {"stage1": jnp.zeros((1, 30, 30, 4))}
    features["stage4"] = jnp.zeros((1, 15, 15, 64))

    @jax.jit  # So that the other parameters are not drawn.
    def draw(key):
      params = head.init(key, features, train=False)["params"]
      return params["y"], params["z"]

    y, z = draw(jax.random.key(0))
    for factor in (y, z):
      self.assertBetween(np.std(factor), 0.95, 1.05)
    # As the docstring has it.
    self.assertBetween(np.std(y @ z), 7, 9)

  def test_the_residual_exists_for_its_loss_only(self):
    head, features = make_head(), make_features()
    variables = make_variables(head, features)
    self.assertIn("reconstruction_residual", apply(head, variables, features))
    out = jax.eval_shape(lambda: head.apply(variables, features, train=False))
    self.assertSameElements(out, ["logits"])
    head = make_head(reconstruction_loss=False)
    self.assertSameElements(apply(head, variables, features), ["logits"])

  @parameterized.product(switch=(0.0, 1.0), reconstruction=(False, True))
  def test_gradients_of_the_low_rank_path(self, switch, reconstruction):
    head, features = make_head(), make_features()
    variables = make_variables(head, features, switch)

    def loss(params):
      out = apply(head, {**variables, "params": params}, features)
      total = jnp.sum(out["logits"] * normal(5, *out["logits"].shape))
      if reconstruction:
        total += jnp.sum(jnp.square(out["reconstruction_residual"]))
      return total

    grads = jax.grad(loss)(variables["params"])
    for name in ("y", "z", "conv1"):
      size = max(np.abs(x).max() for x in jax.tree.leaves(grads[name]))
      if switch or reconstruction:
        self.assertGreater(size, 1e-3, name)
      else:
        self.assertEqual(size, 0.0, name)
    for name in ("conv2", "low", "decoder1", "decoder2", "classifier"):
      for leaf in jax.tree.leaves(grads[name]):
        self.assertGreater(np.abs(leaf).max(), 1e-4, name)

  def test_another_size_is_refused_in_one_line(self):
    features = make_features()
    features["stage4"] = features["stage4"].swapaxes(1, 2)
    head = make_head()
    with self.assertRaisesRegex(
        ValueError, "5x3.*3x5.*16: 33-48 x 65-80.*slide"
    ) as caught:
      abstract(head, features)
    self.assertNotIn("\n", str(caught.exception))


class InferenceTest(parameterized.TestCase):

  def _predict(self, *sizes, **fields):
    model = experiment.build_model(STEP["model"], 3)
    variables = uniform(model, (16, 16))
    predictor, _ = test_segmentation.make_predictor(model, variables, **fields)
    images = test_segmentation.make_images(*sizes)
    return test_segmentation.predict(predictor, variables, images)

  def test_windows_of_the_crop_serve_images_of_any_size(self):
    sizes = [(16, 16), (20, 23), (9, 40)]
    out = self._predict(
        *sizes, mode="slide", crop_size=(16, 16), scales=(0.5, 1.5)
    )
    self.assertEqual([x.shape for x in out], sizes)

  def test_whole_images_must_have_the_size_of_the_crop(self):
    with self.assertRaisesRegex(errors.UserError, "5x6.*4x4.*slide"):
      self._predict((20, 23))


@functools.cache
def run(num_devices, reconstruction=True):
  """Returns the states before and after four steps; the path is on from 2."""
  loss = dict(STEP["loss"])
  if not reconstruction:
    del loss["reconstruction_residual"]
  step, state, put = steps.make_step(
      num_devices, STEP["model"], loss, switches=dict(low_rank=2)
  )
  states = [jax.device_get(state)]
  for i in range(4):
    state, _ = step(state, put(steps.make_batch(i)), jax.random.key(1))
    states.append(jax.device_get(state))
  return states


class StepTest(parameterized.TestCase):

  @pytest.mark.slow  # One step on two is in `test_heads_on_devices`.
  def test_four_devices_equal_one(self):
    chex.assert_trees_all_close(run(1)[-1], run(4)[-1], rtol=1e-3, atol=1e-4)

  @parameterized.parameters(False, True)
  def test_the_path_comes_in_at_its_step(self, reconstruction):
    states = run(1, reconstruction)
    values = [
        float(s.model_state["switches"]["head"]["low_rank"]) for s in states
    ]
    # Of the initial state, and after the steps 0 to 3.
    self.assertEqual(values, [1.0, 0.0, 0.0, 1.0, 1.0])
    y = [s.params["head"]["y"] for s in states]
    moved = [np.abs(a - b).max() > 0 for a, b in zip(y, y[1:], strict=False)]
    self.assertEqual(moved, [reconstruction] * 2 + [True] * 2)
