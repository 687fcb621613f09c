"""The package as other programs use it."""

import subprocess
import sys

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny

import ctxseg_jax
from ctxseg_jax.data.datasets import context_scenes


class LibraryTest(absltest.TestCase):

  def test_the_public_names_are_there(self):
    for name in ctxseg_jax.__all__:
      self.assertIsNotNone(getattr(ctxseg_jax, name), name)
      self.assertIn(name, dir(ctxseg_jax))
    with self.assertRaisesRegex(AttributeError, "lod"):
      ctxseg_jax.lod  # noqa: B018

  def test_importing_it_alone_imports_no_jax(self):
    code = "import ctxseg_jax, sys; sys.exit('jax' in sys.modules)"
    self.assertEqual(subprocess.run([sys.executable, "-c", code]).returncode, 0)

  def test_a_finished_run_predicts_arrays(self):
    trained = ctxseg_jax.load(tiny.finished_run())
    self.assertEqual(trained.scores["step"], trained.step)
    self.assertGreater(trained.scores["miou"], 0.0)
    self.assertEqual(trained.config["model"]["head"]["name"], "encnet")
    images = [context_scenes.draw(0, i).image for i in range(3)]
    images[1] = images[1][:100, :90]
    maps = trained.predict(images)
    probabilities = trained.predict(images, probabilities=True)
    for image, found, chances in zip(images, maps, probabilities, strict=True):
      self.assertEqual(found.shape, image.shape[:2])
      np.testing.assert_array_equal(found, chances.argmax(-1))
      np.testing.assert_allclose(chances.sum(-1), 1.0, rtol=1e-5)

  def test_a_head_in_a_loop_of_ones_own(self):
    model = ctxseg_jax.build_model(
        dict(
            backbone=dict(name="shallow", channels=8),
            head=dict(name="encnet", channels=8, num_codewords=4),
        ),
        num_classes=3,
    )
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, (2, 32, 32)))
    variables = model.init(jax.random.key(0), images)
    state = {"batch_stats": variables["batch_stats"]}
    params = variables["params"]
    tx = optax.adam(1e-2)
    opt_state = tx.init(params)

    @jax.jit
    def step(params, state, opt_state, key):
      def loss_fn(params):
        out, new_state = model.apply(
            {"params": params, **state},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        total, count = ctxseg_jax.losses.softmax_cross_entropy(
            out["logits"], labels
        )
        return total / count, new_state

      (loss, state_), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
      updates, opt_state = tx.update(grads, opt_state)
      return optax.apply_updates(params, updates), state_, opt_state, loss

    losses = []
    for key in jax.random.split(jax.random.key(1), 12):
      params, state, opt_state, loss = step(params, state, opt_state, key)
      losses.append(float(loss))
    self.assertLess(losses[-1], losses[0])
    scores = ctxseg_jax.metrics.scores([[3, 1], [0, 4]])
    self.assertAlmostEqual(scores["miou"], (3 / 4 + 4 / 5) / 2)


if __name__ == "__main__":
  absltest.main()
