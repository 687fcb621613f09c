"""What is frozen stays bit for bit, and costs no gradients."""

import re

from absl.testing import absltest
from absl.testing import parameterized
import flax
import jax
import numpy as np
import steps

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import losses
from ctxseg_jax import schema
from ctxseg_jax.models.layers import normalize_images

MODEL = dict(
    backbone=dict(name="shallow", channels=4),
    head=dict(name="fcn", channels=4, dropout_rate=0.0),
)
LOSS = dict(logits=steps.LOSS["logits"])
# With what would move parameters that have no gradient.
MOVING = dict(weight_decay=0.1, ema_decay=0.5)
BACKBONE = dict(freeze=["backbone"], accumulate_steps=2) | MOVING
PATTERNS = dict(freeze=["backbone/stage1*", "*/bn"], name="adamw") | MOVING


def make(model=MODEL, **fields):
  return steps.make_step(2, model, LOSS, **fields)


def flatten(state):
  trees = dict(params=state.params, average=state.average, **state.model_state)
  return flax.traverse_util.flatten_dict(jax.device_get(trees), sep="/")


def first_loss(fields, statistics=lambda x: x):
  """Returns the loss of a step, with running statistics changed before it."""
  step, state, put = make(**fields)
  changed = jax.tree.map(statistics, state.model_state)
  state = state.replace(model_state=changed)
  return float(steps.run_steps(step, state, put)[1]["loss/total"])


def spread(x):
  return x * np.arange(1, x.size + 1, dtype=np.float32) / 4


class FreezingTest(parameterized.TestCase):

  @parameterized.parameters(
      (r"\w+/backbone/.*", BACKBONE),
      (r"\w+/(backbone/stage1.*|.*/bn/.*)", PATTERNS),
  )
  def test_what_is_frozen_stays_and_the_rest_moves(self, kept, fields):
    step, state, put = make(**fields)
    # A negative zero becomes a positive one by adding zero.
    params = jax.tree.map(lambda x: x.at[..., 0].set(-0.0), state.params)
    state = state.replace(params=params, average=jax.tree.map(abs, params))
    before = flatten(state)
    after = flatten(steps.run_steps(step, state, put, steps=2)[0])
    self.assertSameElements(before, after)
    for name, x in before.items():
      same = x.tobytes() == after[name].tobytes()
      self.assertEqual(same, bool(re.fullmatch(kept, name)), name)

  def test_frozen_batch_norms_normalise_by_running_statistics(self):
    loss = first_loss(BACKBONE)
    # By the statistics of the batch they would be equal to the last bit.
    self.assertNotAlmostEqual(first_loss(BACKBONE, spread), loss, 5)
    _, state, _ = make(**PATTERNS)
    statistics = jax.tree.map(spread, state.model_state)
    batch = steps.make_batch()
    out = jax.jit(experiment.build_model(MODEL, steps.NUM_CLASSES).apply)(
        {"params": state.params, **statistics},
        normalize_images(batch["image"], (127,) * 3, (60,) * 3),
    )
    total, count = losses.softmax_cross_entropy(out["logits"], batch["label"])
    np.testing.assert_allclose(
        first_loss(PATTERNS, spread), total / count, rtol=1e-5
    )

  def test_no_gradient_and_no_momentum_of_frozen_parts(self):
    counts = []
    for fields in (BACKBONE | dict(freeze=[]), BACKBONE):
      step, state, put = make(**fields)
      batch = put(steps.make_batch())
      text = step.lower(state, batch, jax.random.key(1)).as_text()
      counts.append(text.count("stablehlo.convolution"))
    frozen = jax.tree.leaves(state.params["backbone"])
    num_layers = sum(x.ndim == 4 for x in frozen)
    # Of each layer with respect to its kernel and, but the first, its input.
    self.assertLessEqual(counts[1], counts[0] - (2 * num_layers - 1))
    num_trained = len(jax.tree.leaves(state.params)) - len(frozen)
    # The rate's schedule counts steps.
    self.assertLen(jax.tree.leaves(state.opt_state), num_trained + 1)

  @parameterized.parameters(
      (dict(freeze=["bakbone"]), "optim.freeze: no part 'bakbone'.*backbone"),
      (dict(freeze=["*"]), "optim.freeze: .* leave nothing to train"),
      (dict(freeze="backbone"), "optim.freeze: expected a list"),
      (
          dict(freeze=["backbone"], lr_multipliers=dict(heads=2.0)),
          "lr_multipliers: no part 'heads'",
      ),
  )
  def test_mistakes_are_named(self, fields, message):
    params = {part: {"w": np.ones(2)} for part in ("backbone", "head")}
    with self.assertRaisesRegex(errors.UserError, message):
      self.update(fields, params)

  def test_words_of_the_command_line_are_a_list(self):
    for text, expected in (
        ("backbone", ("backbone",)),
        ("*/bn,head", ("*/bn", "head")),
        ("('head',)", ("head",)),
    ):
      section = dict(learning_rate=1.0, freeze=schema.Text(text))
      self.assertEqual(experiment.build_optimizer(section).freeze, expected)

  def update(self, fields, params):
    tx, _ = experiment.build_optimizer(dict(learning_rate=1.0) | fields).make(9)
    gradients = {"head": params["head"]}
    return tx.update(gradients, tx.init(params), params)[0]

  def test_the_factor_of_a_frozen_part_is_no_mistake(self):
    fields = dict(
        freeze=["backbone"],
        lr_multipliers={"backbone": 0.1, "head": 2.0},
        momentum=0.0,
        schedule=dict(name="constant"),
    )
    params = {part: {"w": np.ones(2)} for part in ("backbone", "head")}
    updates = self.update(fields, params)
    np.testing.assert_array_equal(updates["head"]["w"], [-2.0, -2.0])


if __name__ == "__main__":
  absltest.main()
