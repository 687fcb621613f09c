"""Tests for ctxseg_jax.data.spec."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.datasets import cifar10_stand_in
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.evaluation.tasks import TASKS

GOOD = dict(
    name="toy",
    class_names=("a", "b"),
    palette=((0, 0, 0), (1, 1, 1)),
    label_map=spec_lib.label_map({0: 0, 7: 1}, 255),
    mean=(1.0, 2.0, 3.0),
    split_sizes={"train": 1},
    find=None,
    read=None,
    void_ids=(1,),
    needs_source=False,
)


class SpecTest(parameterized.TestCase):

  def test_every_task_of_a_data_set_is_there(self):
    self.assertSameElements(TASKS, spec_lib.TASKS)
    for spec in DATASETS.values():
      self.assertIn(spec.task, TASKS)

  def test_facts_of_a_sound_one(self):
    spec = spec_lib.DatasetSpec(**GOOD)
    self.assertEqual(spec.num_classes, 2)
    self.assertEqual(spec.label_map[[0, 7, 1, 255]].tolist(), [0, 1, 255, 255])

  @parameterized.parameters(
      ("class_names", ("a", "a"), "twice"),
      ("task", "detection", "detection"),
      # Palette and table, which one class per image has no use for.
      ("task", "classification", "for maps"),
      ("palette", (), "0 colours for 2"),
      ("palette", ((0, 0, 0),), "1 colours for 2"),
      ("palette", ((0, 0, 0), (0, 0, 256)), "0-255"),
      ("void_ids", (7,), "void id"),
      ("optional_splits", ("extra",), "no size"),
      ("label_map", None, "label_map must be"),
      ("label_map", spec_lib.label_map({0: 0}, 255), "label_map reaches"),
      ("label_map", np.zeros(256, np.int64), "uint8"),
      ("mean", (0.4, 0.4), "mean"),
  )
  def test_mistakes_are_caught(self, key, value, words):
    with self.assertRaisesRegex(ValueError, words):
      spec_lib.DatasetSpec(**GOOD | {key: value})

  @parameterized.parameters("palette", "label_map")
  def test_classification_has_no_maps(self, key):
    fields = GOOD | dict(task="classification", palette=(), label_map=None)
    spec_lib.DatasetSpec(**fields)
    with self.assertRaisesRegex(ValueError, "for maps"):
      spec_lib.DatasetSpec(**fields | {key: GOOD[key]})

  def test_a_label_that_is_no_class_is_named(self):
    spec = cifar10_stand_in.SPEC
    spec.check_label(np.uint8(9), "a")
    with self.assertRaisesRegex(errors.UserError, "a: label 10, expected 0 to"):
      spec.check_label(np.uint8(10), "a")


if __name__ == "__main__":
  absltest.main()
