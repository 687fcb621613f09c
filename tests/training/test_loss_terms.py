"""What `config.loss` and `config.switches` say is what the step does."""

import typing

from absl.testing import absltest
from absl.testing import parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from configs import quickstart
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import losses
from ctxseg_jax import schema
from ctxseg_jax.training import step as step_lib

PROBABILITIES = np.array([0.5, 0.3, 0.2])
PIXELS = 8 * 4 * 4


class Constant(nn.Module):
  """Gives all pixels the same class scores, behind a switch.

  Attributes:
    names: Outputs, all alike.
  """

  names: tuple[str, ...]

  @nn.compact
  def __call__(self, images, *, train=False):
    scores = self.param("scores", lambda key: jnp.log(PROBABILITIES))
    switch = self.variable("switches", "late", jnp.ones, ())
    logits = switch.value * scores + 0.0 * images
    return dict.fromkeys(self.names, logits)


def make_batch():
  labels = np.random.default_rng(0).integers(0, 3, (8, 4, 4)).astype(np.uint8)
  labels[0] = 255
  labels[1, :3] = 255
  return {"image": np.zeros((8, 4, 4, 3), np.uint8), "label": labels}


def run(terms, num_devices=1, steps=1, switches=None):
  """Returns the states before and after each step, and the scalars."""
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("data",))
  model = Constant(tuple(terms))
  tx, _ = experiment.build_optimizer(dict(learning_rate=0.1)).make(10)
  state = step_lib.run_once(
      lambda key: step_lib.init_state(model, tx, key, (4, 4)),
      jax.random.key(0),
  )
  state = jax.device_put(state, NamedSharding(mesh, P()))
  step = step_lib.make_train_step(
      model,
      tx,
      mesh,
      experiment.build_terms(terms),
      mean=(0,) * 3,
      std=(1,) * 3,
      switches=switches,
  )
  batch = jax.device_put(make_batch(), NamedSharding(mesh, P("data")))
  states, scalars = [jax.device_get(state)], []
  for _ in range(steps):
    state, values = step(state, batch, jax.random.key(1))
    states.append(jax.device_get(state))
    scalars.append(jax.device_get(values))
  return states, scalars


class LossTermsTest(parameterized.TestCase):

  @parameterized.parameters(1, 4)
  def test_each_denominator(self, num_devices):
    labels = make_batch()["label"]
    labels = labels[labels != 255]
    total = -np.log(PROBABILITIES[labels]).sum()
    expected = {
        "labelled": total / labels.size,
        "pixels": total / PIXELS,
        "labelled_times_images": total / labels.size / 8,
        "one": total,
    }
    self.assertLess(labels.size, PIXELS)
    known = schema.options(losses.Term)["denominator"].annotation
    self.assertSameElements(expected, typing.get_args(known))
    terms = {
        name: dict(loss="softmax_cross_entropy", denominator=name)
        for name in expected
    }
    terms["default"] = dict(loss="softmax_cross_entropy")
    expected["default"] = expected["labelled"]
    _, (scalars,) = run(terms, num_devices)
    for name, value in expected.items():
      np.testing.assert_allclose(scalars[f"loss/{name}"], value, rtol=1e-5)
    np.testing.assert_allclose(
        scalars["loss/total"], sum(expected.values()), rtol=1e-5
    )

  def test_the_mean_over_small_class_weights(self):
    # Their sum is below 1, and still what the sum is divided by.
    weights = (1e-3, 2e-3, 0.0)
    _, (scalars,) = run(
        dict(a=dict(loss="softmax_cross_entropy", class_weights=weights))
    )
    labels = make_batch()["label"]
    first, second = (labels == 0).sum(), (labels == 1).sum()
    self.assertLess(1e-3 * first + 2e-3 * second, 1.0)
    expected = -(first * np.log(0.5) + 2 * second * np.log(0.3))
    np.testing.assert_allclose(
        scalars["loss/a"], expected / (first + 2 * second), rtol=1e-5
    )

  def test_every_loss_is_the_same_on_four_devices(self):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(8, 4, 4, 3)), jnp.float32)
    labels = jnp.asarray(make_batch()["label"])

    def means(num_devices):
      mesh = jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("data",))

      def local(logits, labels):
        sums = {}
        for name, loss in losses.LOSSES.items():
          x = logits[:, 0, 0] if name == "presence_bce" else logits
          total, count = jax.lax.psum(loss(x, labels), "data")
          sums[name] = total / count
        return sums

      sharded = jax.shard_map(
          local, mesh=mesh, in_specs=P("data"), out_specs=P()
      )
      return jax.jit(
          lambda x: (sharded(x, labels), jax.jacrev(sharded)(x, labels))
      )(logits)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        means(4),
        means(1),
    )

  def test_a_term_counts_from_its_start_step(self):
    terms = dict(
        a=dict(loss="softmax_cross_entropy", weight=0.5, start_step=2),
    )
    states, scalars = run(terms, steps=3)
    scores = [s.params["scores"] for s in states]
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])
    self.assertGreater(np.abs(scores[3] - scores[0]).max(), 1e-3)
    self.assertEqual([float(s["loss/total"]) for s in scalars[:2]], [0.0, 0.0])
    # Its own value is logged from the beginning.
    for values in scalars:
      self.assertGreater(values["loss/a"], 0.5)
    np.testing.assert_allclose(
        scalars[2]["loss/total"], 0.5 * scalars[2]["loss/a"], rtol=1e-6
    )

  @parameterized.parameters((None, [1, 1, 1]), (dict(late=2), [0, 0, 1]))
  def test_a_switch_is_on_from_its_step_and_stays_in_the_state(
      self, switches, expected
  ):
    states, scalars = run(
        dict(a=dict(loss="softmax_cross_entropy")), steps=3, switches=switches
    )
    self.assertEqual(
        [float(s.model_state["switches"]["late"]) for s in states[1:]],
        expected,
    )
    # Off, the scores are those of a network that knows nothing.
    for values, is_on in zip(scalars, expected, strict=True):
      knows_nothing = abs(values["loss/a"] - np.log(3)) < 1e-6
      self.assertEqual(knows_nothing, not is_on)
    # As is what is evaluated.
    state = states[1]
    out = Constant(("a",)).apply(
        {"params": state.params, **state.model_state}, jnp.zeros((1, 4, 4, 3))
    )
    self.assertEqual(np.abs(out["a"]).max() > 0, bool(expected[0]))

  @parameterized.parameters(
      (dict(loss="ohem_cross_entropy", min_kep=3), "loss.a.min_kep.*min_kept"),
      (dict(loss="ohem_cross_entropy", threshold="x"), "loss.a.threshold"),
      (dict(loss="focal", gama=1.0), "loss.a.gama.*gamma"),
      (dict(loss="lovas_softmax"), "loss.a.loss.*lovasz_softmax"),
      (
          dict(loss="softmax_cross_entropy", denominator="pixel"),
          "loss.a.denominator.*pixels",
      ),
      (dict(loss="dice", denominator="pixels"), "loss.a.denominator"),
      (
          dict(loss="softmax_cross_entropy", class_weights=(1.0, 2.0)),
          "loss.a: class_weights: expected 3, one per class, got 2",
      ),
      (dict(loss="presence_bce"), "loss.a: "),
      (dict(weight=1.0), "loss.a.loss"),
  )
  def test_what_is_wrong_with_a_term_is_named(self, term, message):
    with self.assertRaisesRegex(errors.UserError, message):
      run(dict(a=term))

  def test_an_unknown_switch_is_named(self):
    terms = dict(a=dict(loss="softmax_cross_entropy"))
    with self.assertRaisesRegex(errors.UserError, "switches.lat'.*late"):
      run(terms, switches=dict(lat=2))

  @parameterized.parameters(
      ("loss.ce.start_step", lambda c: c["loss"]["ce"], "start_step"),
      ("loss.ce.weight", lambda c: c["loss"]["ce"], "weight"),
      ("switches.late", lambda c: c.setdefault("switches", {}), "late"),
  )
  def test_steps_and_weights_are_numbers(self, name, section, key):
    config = quickstart.get_config().to_dict()
    experiment.parse(config)
    section(config)[key] = "soon"
    with self.assertRaisesRegex(errors.UserError, name):
      experiment.parse(config)


if __name__ == "__main__":
  absltest.main()
