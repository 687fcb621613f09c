"""Schedules against published values; updates against PyTorch's rule."""

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.training import optim


class ScheduleTest(parameterized.TestCase):

  @parameterized.parameters(
      (0, 0.01),
      (1, 0.0099998875),
      (20000, 0.0077188951),
      (40000, 0.0053588673),
      (79999, 3.866e-7),
      (80000, 0.0),
  )
  def test_poly(self, step, expected):
    schedule = optim.Poly().make(0.01, 80000)
    np.testing.assert_allclose(schedule(step), expected, rtol=2e-3, atol=1e-9)
    if step < 79999:  # Near the end float32 has few digits of 1 - t / T.
      np.testing.assert_allclose(schedule(step), expected, rtol=1e-5)

  @parameterized.parameters((40000, 0.0054052786), (80000, 0.0001))
  def test_poly_with_a_floor_as_mmsegmentation(self, step, expected):
    schedule = optim.Poly(end_value=1e-4).make(0.01, 80000)
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-5)

  @parameterized.parameters(
      # 0.02 + 0.08 * (1 + cos(pi * step / 100)) / 2.
      *((0.02, 100, 0, 0.1), (0.02, 100, 25, 0.0882842712)),
      *((0.02, 100, 50, 0.06), (0.02, 100, 100, 0.02), (0.02, 100, 150, 0.02)),
      # 0.1 * (1 + cos(pi * step / 90)) / 2.
      *((0.0, 90, 30, 0.075), (0.0, 90, 60, 0.025), (0.0, 90, 90, 0.0)),
  )
  def test_cosine(self, end_value, total_steps, step, expected):
    schedule = optim.Cosine(end_value=end_value).make(0.1, total_steps)
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-6, atol=1e-9)

  def test_warmup_rises_to_the_rate_and_then_decays_to_zero(self):
    _, schedule = experiment.build_optimizer(
        dict(
            learning_rate=0.1,
            schedule=dict(name="poly", power=1.0, warmup_steps=10),
        ),
    ).make(110)
    values = [float(schedule(s)) for s in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(values, [0, 0.05, 0.1, 0.05, 0], atol=1e-7)


class UpdateTest(parameterized.TestCase):

  def _run(self, config, params, grads, steps=3):
    tx, _ = experiment.build_optimizer(config).make(100)
    state = tx.init(params)
    for _ in range(steps):
      updates, state = tx.update(grads, state, params)
      params = jax.tree.map(lambda p, u: p + u, params, updates)
    return params

  def test_matches_the_rule_of_pytorch(self):
    # v <- m v + (g + d p); p <- p - rate * multiplier * v, by loops.
    config = dict(
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.01,
        lr_multipliers=dict(head=10.0),
        schedule=dict(name="poly", power=0.9),
    )
    params = {
        "backbone": {"w": jnp.float32(2.0)},
        "head": {"w": jnp.float32(3)},
    }
    grads = {"backbone": {"w": jnp.float32(0.5)}, "head": {"w": jnp.float32(1)}}
    ours = self._run(config, params, grads)
    for part, p, g, multiplier in (
        ("backbone", 2.0, 0.5, 1.0),
        ("head", 3.0, 1.0, 10.0),
    ):
      v = 0.0
      for step in range(3):
        v = 0.9 * v + (g + 0.01 * p)
        p -= 0.1 * (1 - step / 100) ** 0.9 * multiplier * v
      np.testing.assert_allclose(ours[part]["w"], p, rtol=1e-5)

  def test_the_factors_of_all_patterns_that_match_are_multiplied(self):
    # DeepLabV2: the head at 10 times the rate, its biases at 20.
    config = dict(
        learning_rate=0.1,
        lr_multipliers={"head": 10.0, "head/*/bias": 2.0},
        schedule=dict(name="constant"),
    )
    one = jnp.ones(1)
    params = {
        "backbone": {"conv": {"kernel": one, "bias": one}},
        "head": {"conv": {"kernel": one, "bias": one}},
        "header": one,
    }
    ours = self._run(config, params, params, steps=1)
    moved = jax.tree.map(lambda a, b: float((a - b)[0]) / 0.1, params, ours)
    expected = {
        "backbone": {"conv": {"kernel": 1.0, "bias": 1.0}},
        "head": {"conv": {"kernel": 10.0, "bias": 20.0}},
        "header": 1.0,
    }
    chex.assert_trees_all_close(moved, expected, rtol=1e-5)

  def test_adamw_is_that_of_its_paper(self):
    config = dict(
        name="adamw",
        learning_rate=0.1,
        weight_decay=0.5,
        b1=0.8,
        b2=0.9,
        schedule=dict(name="constant"),
    )
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(2, 3, 2))
    found = self._run(config, {"w": jnp.asarray(p)}, {"w": jnp.asarray(g)})["w"]
    m = v = 0.0
    for t in range(1, 4):
      m = 0.8 * m + 0.2 * g
      v = 0.9 * v + 0.1 * g * g
      step = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
      p = p - 0.1 * (step + 0.5 * p)
    np.testing.assert_allclose(found, p, rtol=1e-5)

  @parameterized.parameters((0.5, 0.1), (100.0, 1.0))
  def test_the_global_norm_is_clipped(self, clip_norm, factor):
    config = dict(
        learning_rate=1.0,
        momentum=0.0,
        clip_norm=clip_norm,
        schedule=dict(name="constant"),
    )
    grads = {"a": jnp.full(9, 1.0), "b": jnp.full(4, 2.0)}  # Norm 5.
    params = jax.tree.map(jnp.zeros_like, grads)
    found = self._run(config, params, grads, steps=1)
    expected = jax.tree.map(lambda x: -factor * x, grads)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)

  @parameterized.parameters(("all", True), ("kernels", False))
  def test_the_mask_says_what_decays(self, mask, decays):
    config = dict(learning_rate=0.1, weight_decay=0.5, weight_decay_mask=mask)
    params = {"head": {"bias": jnp.ones(3), "kernel": jnp.ones((2, 2))}}
    grads = jax.tree.map(jnp.zeros_like, params)
    ours = self._run(config, params, grads, steps=1)
    np.testing.assert_allclose(ours["head"]["kernel"], 0.95, rtol=1e-6)
    np.testing.assert_allclose(
        ours["head"]["bias"], 0.95 if decays else 1.0, rtol=1e-6
    )

  @parameterized.parameters(
      (dict(learnig_rate=0.1), "learnig_rate.*did you mean.*learning_rate"),
      (dict(learning_rate=0.1, schedule=dict(name="poli")), "poli.*poly"),
      (
          dict(learning_rate=0.1, schedule=dict(name="poly", powr=1.0)),
          "optim.schedule.powr",
      ),
      (dict(learning_rate=0.1, weight_decay_mask="some"), "kernels"),
  )
  def test_typos_are_named(self, config, message):
    with self.assertRaisesRegex(errors.UserError, message):
      experiment.build_optimizer(config).make(10)

  def test_a_multiplier_for_a_part_that_is_not_there_is_refused(self):
    config = dict(learning_rate=0.1, lr_multipliers=dict(neck=2.0))
    with self.assertRaisesRegex(errors.UserError, "neck"):
      self._run(config, {"head": jnp.ones(2)}, {"head": jnp.ones(2)})


if __name__ == "__main__":
  absltest.main()
