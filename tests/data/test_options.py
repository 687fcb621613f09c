"""Tests for ctxseg_jax.data.options."""

import math

from absl.testing import absltest
from absl.testing import parameterized

from ctxseg_jax.data import options

GIVEN = dict(
    name="camvid",
    data_dir="data",
    train_split="train",
    eval_split="val",
    mean=(0.0, 116.28, 255.0),
    std=(58.395, 57.12, 57.375),
)


class DataOptionsTest(parameterized.TestCase):

  def test_the_rest_has_defaults(self):
    chosen = options.DataOptions(**GIVEN)
    self.assertEqual((chosen.num_workers, chosen.root), (0, ""))

  @parameterized.parameters(
      ("mean", (0.0, 0.0)),
      ("mean", (0.0, -1.0, 0.0)),
      ("mean", (math.inf, 0.0, 0.0)),
      ("std", (1.0, 0.0, 1.0)),
      ("std", (1.0, math.nan, 1.0)),
      ("std", (1.0, 1.0, math.inf)),
      ("num_workers", -1),
      ("num_workers", 10**9),
  )
  def test_bad_values_are_named(self, field, value):
    with self.assertRaisesRegex(ValueError, f"^{field}: .*expected"):
      options.DataOptions(**GIVEN | {field: value})


if __name__ == "__main__":
  absltest.main()
