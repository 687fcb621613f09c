"""The training step: any number of devices computes the same update."""

import re

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

from ctxseg_jax import errors
from ctxseg_jax.training import warping

CROSS_ENTROPIES = {k: v for k, v in steps.LOSS.items() if k != "se_logits"}


class DevicesTest(parameterized.TestCase):

  @parameterized.parameters(2, 8)
  def test_equal_one_device(self, num_devices):

    def run(num_devices):
      step, state, put = steps.make_step(num_devices)
      before = jax.device_get(state.params)
      state, scalars = steps.run_steps(step, state, put)
      # With momentum and one step the update is the gradient itself.
      grads = jax.tree.map(lambda a, b: (a - b) / 0.1, before, state.params)
      return grads, state, scalars

    grads, state, scalars = run(1)
    grads_n, state_n, scalars_n = run(num_devices)
    # Plain SGD would show a constant factor; an adaptive rule would hide it.
    chex.assert_trees_all_close(grads_n, grads, rtol=1e-3, atol=2e-5)
    chex.assert_trees_all_close(
        state_n.model_state, state.model_state, rtol=1e-4, atol=1e-5
    )
    for name in (
        "loss/total",
        "grad_norm",
        *(f"loss/{term}" for term in steps.LOSS),
    ):
      np.testing.assert_allclose(scalars_n[name], scalars[name], rtol=1e-4)

  def test_eight_devices_stay_with_one_over_several_steps(self):
    state, _ = steps.run_steps(*steps.make_step(1), steps=3)
    state_n, _ = steps.run_steps(*steps.make_step(8), steps=3)
    chex.assert_trees_all_close(
        state_n.params, state.params, rtol=1e-3, atol=1e-4
    )

  @pytest.mark.slow  # Compiles one more step.
  def test_devices_warp_their_share_of_a_batch(self):
    batch = steps.make_batch(size=24)
    batch["size"] = np.full((8, 2), (20, 23), np.int32)
    batch["matrix"] = np.tile(np.eye(2, 3, 0, np.float32), (8, 1, 1))
    batch["matrix"][:, :, 2] = np.arange(-8, 8).reshape(8, 2)
    warped = warping.warp(
        batch, crop_size=(16, 16), pad_color=(127,) * 3, ignore_label=255
    )
    warped["image"] = warped["image"].astype(np.uint8)
    losses = []
    for num_devices, given in ((1, warped), (2, batch)):
      step, state, put = steps.make_step(num_devices)
      _, scalars = step(state, put(given), jax.random.key(1))
      losses.append(scalars["loss/total"])
    np.testing.assert_allclose(*losses, rtol=1e-4)

  def test_one_all_reduce_per_batch_norm_and_pass(self):
    step, state, put = steps.make_step(8)
    args = (state, put(steps.make_batch()), jax.random.key(1))
    batch_norms = sum(
        path[-1].key == "mean"
        for path, _ in jax.tree_util.tree_leaves_with_path(
            state.model_state["batch_stats"]
        )
    )
    text = step.lower(*args).compile().as_text()
    found = re.findall(r"= .*all-reduce(?:-start)?\(", text)
    # Mean and mean of squares travel together, as [2, C]; so do, backward, the
    # two sums that the gradient of the input needs.
    pairs = [line for line in found if "f32[2," in line]
    self.assertEqual(batch_norms, 9)
    self.assertLen(pairs, 2 * batch_norms)
    # The loss terms and the gradients of the parameters are combined, with each
    # other or with these.
    self.assertLessEqual(len(found), 2 * batch_norms + 3)

  def test_what_devices_add_up_is_float32_in_bfloat16_networks_too(self):
    step, state, put = steps.make_step(2, steps.MODEL | dict(dtype="bfloat16"))
    args = (state, put(steps.make_batch()), jax.random.key(1))
    text = step.lower(*args).as_text()
    self.assertIn("bf16", text)
    pattern = r"stablehlo\.all_reduce.*?\}\) : \((.*?)\)"
    types = re.findall(pattern, text, re.DOTALL)
    self.assertNotEmpty(types)
    self.assertEmpty([found for found in types if "f32" not in found])

  def test_dropout_differs_between_devices_and_steps(self):
    model = steps.MODEL | dict(
        head=dict(name="fcn", channels=64, dropout_rate=0.5)
    )
    loss = dict(logits=steps.LOSS["logits"])
    step, state, put = steps.make_step(2, model, loss, learning_rate=0.0)
    same = {k: np.repeat(v[2:3], 8, 0) for k, v in steps.make_batch().items()}
    state, first = step(state, put(same), jax.random.key(1))
    _, second = step(state, put(same), jax.random.key(1))
    self.assertNotEqual(float(first["loss/total"]), float(second["loss/total"]))


class AccumulationTest(absltest.TestCase):

  def _make(self, num_devices, parts):
    # Frozen batch norms, and losses whose denominators are alike in all parts:
    # the mean over parts is then the mean over the batch.
    model = steps.MODEL | dict(norm=dict(frozen=True))
    loss = {
        "logits": steps.LOSS["logits"] | dict(denominator="pixels"),
        "se_logits": steps.LOSS["se_logits"],
    }
    return steps.make_step(num_devices, model, loss, accumulate_steps=parts)

  def test_parts_of_a_batch_are_the_whole_batch(self):
    results = []
    for num_devices, parts in ((1, 1), (2, 2)):
      step, state, put = self._make(num_devices, parts)
      batch = steps.make_batch()
      batch["label"][0] = 1  # Every image has a class to be present.
      state, scalars = step(state, put(batch), jax.random.key(1))
      results.append(jax.device_get((state.params, scalars)))
    chex.assert_trees_all_close(*results, rtol=1e-3, atol=2e-5)

  def test_gradients_are_reduced_once_per_update(self):
    counts = {}
    for parts in (1, 4):
      step, state, put = self._make(2, parts)
      args = (state, put(steps.make_batch()), jax.random.key(1))
      text = step.lower(*args).compile().as_text()
      # Scalars of the loss apart, what is reduced are gradients.
      lines = re.findall(r"= (.*)all-reduce(?:-start)?\(", text)
      counts[parts] = sum("[" in re.sub(r"f32\[\]", "", x) for x in lines)
    self.assertEqual(counts[4], counts[1])
    self.assertGreater(counts[1], 0)


class AverageTest(absltest.TestCase):

  def test_the_average_follows_the_parameters(self):
    step, state, put = steps.make_step(2, ema_decay=0.5)
    expected = jax.device_get(state.params)
    for i in range(3):
      state, _ = step(state, put(steps.make_batch(i)), jax.random.key(1))
      decay = min(0.5, (1 + i) / (10 + i))
      expected = jax.tree.map(
          lambda a, p, decay=decay: decay * a + (1 - decay) * p,
          expected,
          jax.device_get(state.params),
      )
    chex.assert_trees_all_close(state.average, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(state.variables["params"], state.average)

  def test_without_one_the_parameters_are_evaluated(self):
    _, state, _ = steps.make_step(1)
    self.assertIsNone(state.average)
    self.assertIs(state.variables["params"], state.params)


class StepTest(absltest.TestCase):

  def test_traces_once(self):
    step, state, put = steps.make_step(8)
    state, _ = steps.run_steps(step, state, put, steps=3)
    self.assertEqual(int(state.step), 3)
    self.assertEqual(step._cache_size(), 1)

  def test_a_fully_ignored_batch_moves_nothing_but_the_presence_loss(self):
    step, state, put = steps.make_step(8, loss=CROSS_ENTROPIES)
    batch = steps.make_batch()
    batch["label"][:] = 255
    before = jax.device_get(state.params)
    state, scalars = step(state, put(batch), jax.random.key(1))
    self.assertEqual(float(scalars["loss/total"]), 0.0)
    chex.assert_trees_all_equal(jax.device_get(state.params), before)
    chex.assert_tree_all_finite(state)

  def test_what_is_under_ignored_pixels_does_not_matter(self):
    # Not even to gradients, but for batch norm, which is frozen here, and for
    # the presence loss. Context is of the whole image: so is what is ignored.
    frozen = steps.MODEL | dict(norm=dict(frozen=True))
    step, start, put = steps.make_step(1, frozen, CROSS_ENTROPIES)

    def run(**changes):
      state = jax.tree.map(jnp.copy, start)  # As the step donates it.
      batch = put(steps.make_batch() | changes)
      state, scalars = step(state, batch, jax.random.key(1))
      return state.params, scalars["loss/total"], scalars["grad_norm"]

    batch = steps.make_batch()
    batch["image"][0] = 255 - batch["image"][0]
    self.assertTrue((batch["label"][0] == 255).all())
    expected = run()
    chex.assert_trees_all_equal(run(image=batch["image"]), expected)
    batch["label"][0, 0, 0] = 1
    for x, y in zip(run(**batch)[1:], expected[1:], strict=True):
      self.assertNotEqual(float(x), float(y))

  def test_the_total_is_the_weighted_sum(self):
    _, scalars = steps.run_steps(*steps.make_step(1))
    expected = (
        scalars["loss/logits"]
        + 0.4 * scalars["loss/aux_logits"]
        + 0.2 * scalars["loss/se_logits"]
    )
    np.testing.assert_allclose(scalars["loss/total"], expected, rtol=1e-6)

  def test_diagnostics_are_logged_and_no_state(self):
    state, scalars = steps.run_steps(*steps.make_step(8))
    codewords = float(scalars["diagnostics/head/effective_codewords"])
    self.assertBetween(codewords, 1.0, 4.0)
    self.assertNotIn("diagnostics", state.model_state)

  def test_the_loss_falls(self):
    step, state, put = steps.make_step(8)
    values = []
    for _ in range(8):
      state, scalars = step(state, put(steps.make_batch()), jax.random.key(1))
      values.append(float(scalars["loss/total"]))
    self.assertLess(values[-1], 0.9 * values[0])

  def test_an_output_that_is_not_there_is_named(self):
    made = steps.make_step(
        1, loss=dict(logitz=dict(loss="softmax_cross_entropy"))
    )
    with self.assertRaisesRegex(errors.UserError, "logitz.*aux_logits"):
      steps.run_steps(*made)

  def test_bfloat16_follows_float32(self):
    losses = {}
    for dtype in ("float32", "bfloat16"):
      state, scalars = steps.run_steps(
          *steps.make_step(1, steps.MODEL | dict(dtype=dtype))
      )
      losses[dtype] = float(scalars["loss/total"])
      self.assertEqual(
          {x.dtype for x in jax.tree.leaves(state.params)},
          {jnp.dtype("float32")},
      )
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=2e-2)


if __name__ == "__main__":
  absltest.main()
