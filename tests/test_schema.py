"""Sections of a config become typed values; mistakes become one clear line."""

import dataclasses
from typing import Literal

from absl.testing import absltest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from configs import quickstart
from ctxseg_jax import bounds
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import schema


@dataclasses.dataclass
class Wheel:
  spokes: int = 8


@dataclasses.dataclass
class Track:
  """Not a wheel.

  Attributes:
    links: Number of links,
      over both sides.
    width: In mm.
  """

  links: int = 40
  width: bounds.PositiveFloat = 9.0


@dataclasses.dataclass
class Thing:
  size: int
  rate: float = 0.5
  deep: bool = False
  label: Literal["a", "b"] = "a"
  pair: tuple[int, int] | None = None
  path: str = ""
  factors: dict[str, float] = dataclasses.field(default_factory=dict)
  drive: Wheel | Track | None = None

  def __post_init__(self):
    if self.size == 13:
      raise ValueError(f"size {self.size} brings bad luck")


PARTS = {"drive": {"wheel": Wheel, "track": Track}}


def parse(section, *, given=None):
  done, arguments = schema.complete(
      [Thing], section, "part", given=given, parts=PARTS
  )
  return done, schema.make(Thing, arguments, "part")


class SchemaTest(parameterized.TestCase):

  def test_defaults_are_added_and_values_converted(self):
    done, thing = parse(
        dict(size=3, rate=1, pair=[1, 2], drive={"name": "track"})
    )
    self.assertEqual(thing, Thing(3, 1.0, pair=(1, 2), drive=Track()))
    self.assertEqual(
        done["drive"], {"name": "track", "links": 40, "width": 9.0}
    )
    self.assertEqual(parse(done), (done, thing))

  @parameterized.parameters(
      (dict(size=1, raet=2.0), "part.raet.*did you mean 'part.rate'"),
      (dict(size=1, rate="x"), "part.rate: expected .*number, got 'x'"),
      (dict(size=1, deep=1), "part.deep: expected True or False"),
      (dict(size=1, rate=True), "part.rate: expected .*, got True"),
      (dict(size=1, pair="fifty"), "part.pair: expected a list of 2"),
      (dict(size=1, label="c"), "part.label: expected one of 'a', 'b'"),
      (dict(size=1, factors=3), "part.factors: expected a section"),
      (dict(size=1, factors=dict(x="y")), "part.factors.x: expected"),
      (dict(size=1, drive=4), "part.drive: expected a section"),
      (dict(size=1, drive={}), "part.drive.name.*track, wheel"),
      (dict(size=1, drive={"name": "trak"}), "part.drive.name.*'track'"),
      (dict(size=1, drive={"name": []}), "part.drive.name"),
      (
          dict(size=1, drive={"name": "track", "width": 0}),
          "part.drive.width: expected a finite number above 0, got 0",
      ),
      (dict(size=13), "part: size 13 brings bad luck"),
      ({}, "missing key 'part.size'"),
      (7, "part: expected a section"),
  )
  def test_mistakes_are_named(self, section, message):
    with self.assertRaisesRegex(errors.UserError, message):
      parse(section)

  def test_given_values_are_no_keys_of_the_section(self):
    self.assertEqual(parse({}, given=dict(size=3))[1], Thing(3))
    with self.assertRaisesRegex(errors.UserError, "part.size"):
      parse(dict(size=1), given=dict(size=3))

  @parameterized.parameters(
      ("size", "4", 4),
      ("rate", "1e-2", 0.01),
      ("deep", "true", True),
      ("label", "b", "b"),
      ("pair", "3,4", (3, 4)),
      ("pair", "(3, 4)", (3, 4)),
      ("pair", "None", None),
      ("path", "123", "123"),
      ("factors.head", "10", {"head": 10.0}),
      ("drive.name", "wheel", Wheel()),
      ("drive.width", "2", Track(width=2.0)),
  )
  def test_texts_are_converted_by_type(self, key, text, expected):
    section = dict(size=1, pair=(1, 2), drive={"name": "track", "links": 7})
    thing = parse(schema.override(section, key, text))[1]
    found = getattr(thing, key.partition(".")[0])
    if key == "drive.width":
      expected.links = 7
    self.assertEqual(found, expected)
    self.assertIs(type(found), type(expected))

  @parameterized.parameters(
      ("size", "four", "part.size: expected an integer, got 'four'"),
      ("pair", "fifty", "part.pair"),
      ("drive.spokes", "3", "unknown key 'part.drive.spokes'"),
      ("size.x", "3", "--config.size.x: 'size' is 1, not a section"),
  )
  def test_texts_that_do_not_fit_are_named(self, key, text, message):
    section = dict(size=1, drive={"name": "track", "links": 7})
    with self.assertRaisesRegex(errors.UserError, message):
      parse(schema.override(section, key, text))

  def test_meanings_are_those_of_the_docstring(self):
    self.assertEqual(
        schema.meanings(Track),
        {"links": "Number of links, over both sides.", "width": "In mm."},
    )


def _keys(tree, prefix=()):
  for key, value in tree.items():
    yield (*prefix, key)
    if isinstance(value, dict):
      yield from _keys(value, (*prefix, key))


KEYS = [
    # Names of parts, outputs and multipliers are not a fixed set of keys.
    k
    for k in _keys(quickstart.get_config().to_dict())
    if k[0] not in ("loss",) and "lr_multipliers" not in k[:-1]
]


class TyposTest(absltest.TestCase):

  @hypothesis_settings(max_examples=150, deadline=None, derandomize=True)
  @given(st.sampled_from(KEYS), st.data())
  def test_one_wrong_letter_in_any_key_is_refused(self, key, data):
    config = quickstart.get_config().to_dict()
    section = config
    for part in key[:-1]:
      section = section[part]
    name = key[-1]
    at = data.draw(st.integers(0, len(name) - 1))
    typo = name[:at] + "q" + name[at + 1 :]
    section[typo] = section.pop(name)
    with self.assertRaises(errors.UserError):
      experiment.parse(config)


if __name__ == "__main__":
  absltest.main()
