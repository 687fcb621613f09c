"""Sections of a config become calls; mistakes become one clear line."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from configs import quickstart
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import settings
from ctxseg_jax.models import network
from ctxseg_jax.pretrained import initial


@dataclasses.dataclass
class Thing:
  size: int
  rate: float = 0.5
  deep: bool = False
  label: str = "a"

  def __post_init__(self):
    if self.size < 0:
      raise ValueError(f"size {self.size} is negative")


class SettingsTest(parameterized.TestCase):

  def test_builds(self):
    thing = settings.build(
        Thing, dict(name="thing", rate=1), "part", size=3, unused=4
    )
    self.assertEqual(thing, Thing(3, 1))

  @parameterized.parameters(
      (dict(size=1, raet=2.0), "part.raet.*did you mean 'part.rate'"),
      (dict(size=1, rate="x"), "part.rate: expected float, got str 'x'"),
      (dict(size=1, deep=1), "part.deep: expected bool"),
      (dict(size=1, rate=True), "part.rate: expected float, got bool"),
      (dict(size=-1), "part: size -1 is negative"),
      ({}, "part: .*size"),
  )
  def test_mistakes_are_named(self, section, message):
    with self.assertRaisesRegex(errors.UserError, message):
      settings.build(Thing, section, "part")

  def test_common_arguments_are_no_keys_of_the_section(self):
    with self.assertRaisesRegex(errors.UserError, "part.size"):
      settings.build(Thing, dict(size=1), "part", size=3)


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
      experiment.check(config)
      initial.check(config)
      spec = experiment.dataset(config)
      experiment.augmentation(config, spec)
      experiment.inference_settings(config)
      network.build(config["model"], 3, bn_axis_name=None)
      from ctxseg_jax.training import optim

      optim.make(config["optim"], total_steps=3)


if __name__ == "__main__":
  absltest.main()
