"""Values of options are checked against their annotations."""

import dataclasses
from typing import Annotated
from typing import Any
from typing import Literal

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from ctxseg_jax import bounds

GATES = Literal["multiply", "sum"]
STRIDES = Literal[8, 16, 32]
NAN = float("nan")
INF = float("inf")


class CheckValueTest(parameterized.TestCase):

  @parameterized.parameters(
      (3, int, 3),
      (np.int64(3), int, 3),
      (3, float, 3.0),
      (np.float32(0.5), float, 0.5),
      (True, bool, True),
      ("a", str, "a"),
      ("sum", GATES, "sum"),
      (8, STRIDES, 8),
      (None, int | None, None),
      (2, int | None, 2),
      ([1, 2], tuple[int, ...], (1, 2)),
      ((), tuple[int, ...], ()),
      ([1, 2, 3], tuple[float, float, float], (1.0, 2.0, 3.0)),
      ([[1, 2]], tuple[tuple[int, int], ...], ((1, 2),)),
      ([1, 2], int | tuple[int, int], (1, 2)),
      ({"a": 1}, dict[str, float], {"a": 1.0}),
      (1, bounds.PositiveInt, 1),
      (0, bounds.NonNegativeInt, 0),
      (1, bounds.Fraction, 1.0),
      (0, bounds.DropoutRate, 0.0),
      (None, bounds.PositiveInt | None, None),
      ((1, 2), tuple[bounds.PositiveInt, ...], (1, 2)),
  )
  def test_a_value_gets_the_type_of_its_annotation(
      self, value, annotation, expected
  ):
    found = bounds.check_value(value, annotation, "x")
    self.assertEqual(found, expected)
    self.assertIs(type(found), type(expected))
    if isinstance(found, tuple):
      self.assertEqual(list(map(type, found)), list(map(type, expected)))

  @parameterized.parameters(
      (True, int, "an integer"),
      (1.0, int, "an integer"),
      ("fifty", int | None, "an integer, or None"),
      (10**23, int, "an integer"),
      (True, float, "a finite number"),
      (NAN, float, "a finite number"),
      (INF, float, "a finite number"),
      (10**400, float, "a finite number"),
      (None, float, "a finite number"),
      (1, bool, "True or False"),
      (1, str, "a string"),
      ("mul", GATES, "one of 'multiply', 'sum'"),
      (True, Literal[1, 2], "one of 1, 2"),
      ([8], STRIDES, "one of 8, 16, 32"),
      ("12", tuple[int, ...], "a list, each item an integer"),
      ([1, "2"], tuple[int, ...], "a list, each item an integer"),
      ([1], tuple[int, int], "a list of 2, each item an integer"),
      (5, tuple[float, int], "a list of (a finite number; an integer)"),
      ({1: 1}, dict[str, int], "a dict of names, each value an integer"),
      (5, dict[str, int], "a dict of names, each value an integer"),
      (0, bounds.PositiveInt, "an integer of at least 1"),
      (-1, bounds.NonNegativeInt, "an integer of at least 0"),
      (0.0, bounds.PositiveFloat, "a finite number above 0"),
      (-0.1, bounds.NonNegativeFloat, "a finite number of at least 0"),
      (2.0, bounds.Fraction, "a finite number from 0 to 1"),
      (1.0, bounds.DropoutRate, "a finite number of at least 0 and below 1"),
      ((1, 0), tuple[bounds.PositiveInt, ...], "a list, each item an integer"),
      ((), bounds.PositiveInts, "a list, each item an integer of at least 1 ("),
      (5, Annotated[int, bounds.Bounds(high=4)], "an integer of at most 4"),
  )
  def test_other_values_are_refused_by_name(self, value, annotation, expected):
    with self.assertRaises(ValueError) as caught:
      bounds.check_value(value, annotation, "head.x")
    message = str(caught.exception)
    self.assertStartsWith(message, f"head.x: expected {expected}")
    self.assertNotIn("\n", message)

  def test_a_long_value_is_shortened(self):
    with self.assertRaises(ValueError) as caught:
      bounds.check_value("x" * 10_000, int, "seed")
    self.assertLess(len(str(caught.exception)), 120)


@dataclasses.dataclass(frozen=True)
class _Layer:
  channels: bounds.PositiveInt
  gate: GATES = "multiply"
  anything: Any = None

  def __post_init__(self):
    bounds.check_fields(self)


class CheckFieldsTest(absltest.TestCase):

  def test_fields_are_checked_and_unknown_annotations_pass(self):
    self.assertEqual(_Layer(1, "sum", object).channels, 1)
    message = "^channels: expected an integer of at least 1, got 0$"
    with self.assertRaisesRegex(ValueError, message):
      _Layer(0)
    with self.assertRaisesRegex(ValueError, "^gate: expected one of"):
      _Layer(1, "add")


if __name__ == "__main__":
  absltest.main()
