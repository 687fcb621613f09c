"""Tests for ctxseg_jax.data.context_scenes."""

import functools
import hashlib
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from ctxseg_jax.data import records
from ctxseg_jax.data.datasets import context_scenes

INDICES = range(40)
# Image and label of draw(1, 0), by the reference generator the dataset is
# specified with. It changes with the order of the draws.
DRAW_1_0 = "f528cc4e8bd8974121e3450e031fe1bf3055a935ee720c580c4607cd6ecac297"


@functools.cache
def cue_swap(index):
  return context_scenes.cue_swap(seed=3, index=index)


class DrawTest(absltest.TestCase):

  def test_is_the_specified_dataset(self):
    scene = context_scenes.draw(context_scenes.TRAIN_SEED, 0)
    data = scene.image.tobytes() + scene.label.tobytes()
    self.assertEqual(hashlib.sha256(data).hexdigest(), DRAW_1_0)

  def test_only_ink_and_labels_depend_on_the_scene(self):
    for index in INDICES:
      scenes = cue_swap(index)
      y0, y1, x0, x1 = scenes[0].band
      outside = np.ones((128, 128), bool)
      outside[y0:y1, x0:x1] = False
      for k, scene in enumerate(scenes):
        self.assertEqual(scene.scene, k)
        self.assertEqual(scene.band, scenes[0].band)
        np.testing.assert_array_equal(scene.look, scenes[0].look)
        np.testing.assert_array_equal(
            scene.image[outside], scenes[0].image[outside]
        )
        if k:  # The band itself does tell the scenes apart.
          differs = np.any(scene.image != scenes[0].image, axis=-1)
          self.assertGreater(differs[~outside].mean(), 0.1)

  def test_objects_are_further_than_the_gap_from_the_band(self):
    for index in INDICES:
      scene = context_scenes.draw(3, index)
      y0, y1, x0, x1 = scene.band
      y, x = np.nonzero(scene.look >= 0)
      distance = np.max([y0 - y, y - (y1 - 1), x0 - x, x - (x1 - 1)], axis=0)
      self.assertGreater(distance.min(), context_scenes.GAP)

  def test_label_follows_from_look_and_scene(self):
    for index in INDICES:
      for scene in cue_swap(index):
        y0, y1, x0, x1 = scene.band
        expected = np.where(
            scene.look >= 0, 5 + 4 * scene.look + scene.scene, 0
        )
        expected[y0:y1, x0:x1] = 1 + scene.scene
        np.testing.assert_array_equal(scene.label, expected)
        self.assertSetEqual(set(np.unique(scene.look)), {-1, 0, 1, 2})

  def test_is_pure_and_seeds_differ(self):
    one = context_scenes.draw(1, 5)
    np.random.default_rng(0).normal()  # No hidden state.
    np.testing.assert_array_equal(one.image, context_scenes.draw(1, 5).image)
    self.assertFalse(np.array_equal(one.image, context_scenes.draw(2, 5).image))
    self.assertFalse(np.array_equal(one.image, context_scenes.draw(1, 6).image))

  def test_override_with_the_own_scene_changes_nothing(self):
    for index in range(10):
      own = context_scenes.draw(1, index)
      again = context_scenes.draw(1, index, scene=own.scene)
      np.testing.assert_array_equal(own.image, again.image)
      np.testing.assert_array_equal(own.label, again.label)

  def test_a_flip_keeps_every_pattern(self):
    # Flipping must stay a legal augmentation: along a top or bottom band the
    # ink of the flipped image is the ink of the image.
    checked = 0
    for index in INDICES:
      for scene in cue_swap(index):
        y0, y1, x0, x1 = scene.band
        if scene.scene == 3 or x1 - x0 < 128:
          continue  # Waves keep their kind but not their phase.
        ink = scene.image[y0:y1].mean(axis=-1) < 128
        self.assertGreater(np.mean(ink == ink[:, ::-1]), 0.99)
        checked += 1
    self.assertGreater(checked, 10)


class WindowBoundTest(absltest.TestCase):

  def test_value(self):
    # Five classes are local; of twelve, each look's four get 1/7 each.
    self.assertAlmostEqual(
        context_scenes.window_bound(), (5 + 3 * 4 / 7) / 17, places=12
    )
    self.assertAlmostEqual(context_scenes.window_bound(), 0.3949579831932773)

  def test_no_random_guess_beats_the_closed_form(self):
    guesses = np.random.default_rng(0).dirichlet(np.ones(4), 100_000)
    hits = guesses / 4
    found = np.sum(hits / (1 / 4 + guesses - hits), axis=1).max()
    best = (17 * context_scenes.window_bound() - 5) / 3  # Of one look.
    self.assertLessEqual(found, best + 1e-12)
    self.assertGreater(found, best - 0.01)  # It is reached, too.

  def test_simulated_guess_reaches_the_bound(self):
    # Equal shares of the scenes, as in the closed form: every index under all.
    rng = np.random.default_rng(0)
    counts = np.zeros((17, 17), np.int64)
    for index in range(60):
      for scene in cue_swap(index):
        label = scene.label.astype(np.int64)
        guess = label.copy()
        on_object = scene.look >= 0
        guessed_scene = rng.integers(4, size=on_object.sum())
        guess[on_object] = 5 + 4 * scene.look[on_object] + guessed_scene
        counts += np.bincount(
            label.ravel() * 17 + guess.ravel(), minlength=17 * 17
        ).reshape(17, 17)
    hits = np.diag(counts)
    ious = hits / (counts.sum(axis=0) + counts.sum(axis=1) - hits)
    self.assertAlmostEqual(
        ious.mean(), context_scenes.window_bound(), delta=0.002
    )


class DatasetTest(absltest.TestCase):

  def test_tables_agree(self):
    self.assertEqual(context_scenes.SPEC.num_classes, 17)
    self.assertEqual(context_scenes.band_class(3), 4)
    self.assertEqual(context_scenes.object_class(2, 3), 16)
    names = context_scenes.CLASS_NAMES
    self.assertEqual(names[context_scenes.band_class(1)], "asphalt")
    self.assertEqual(names[context_scenes.object_class(0, 1)], "wheel")
    self.assertEqual(names[context_scenes.object_class(1, 2)], "ruler")

  def test_is_generated_on_first_use_and_holds_the_draws(self):
    spec = context_scenes.SPEC
    self.enterContext(mock.patch.dict(spec.split_sizes, {"train": 6, "val": 3}))
    data_dir = self.enterContext(tempfile.TemporaryDirectory())
    val = records.open_source(spec, "val", data_dir)
    train = records.open_source(spec, "train", data_dir)
    self.assertLen(train, 6)
    self.assertLen(val, 3)
    for source, seed in ((train, 1), (val, 2)):
      for index in range(len(source)):
        scene = context_scenes.draw(seed, index)
        np.testing.assert_array_equal(source[index]["image"], scene.image)
        np.testing.assert_array_equal(source[index]["label"], scene.label)
    self.assertEqual(val[2]["name"], "val_0002")
    self.assertEqual(val.sizes().tolist(), [[128, 128]] * 3)
    self.assertNotIn("tensorflow", sys.modules)


if __name__ == "__main__":
  absltest.main()
