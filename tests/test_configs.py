"""Every config builds, says how it is run, and what it reached."""

import importlib.util
import pathlib
import re
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import miniatures
import numpy as np

from ctxseg_jax import experiment
from ctxseg_jax import losses
from ctxseg_jax.training import optim

ROOT = pathlib.Path(__file__).parent.parent
PATHS = [
    str(p.relative_to(ROOT))
    for p in sorted((ROOT / "configs").rglob("*.py"))
    if p.name not in ("__init__.py", "common.py")
]


def load(path):
  spec = importlib.util.spec_from_file_location("config", ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def variants(module):
  """Returns the variants that the docstring of a config names."""
  found = re.findall(r"Variants?[^.]*?:(.*?)\.\s", module.__doc__, re.DOTALL)
  return re.findall(r"`(\w+)`", found[0]) if found else []


def resolved(test, config):
  """Returns plain dicts, of own data where the config is to be given some."""
  if config.data.name == "custom":
    folder = test.enterContext(tempfile.TemporaryDirectory())
    config.data.root = folder
    miniatures.write_custom(pathlib.Path(folder))
  return experiment.resolve(config.to_dict())


class ConfigsTest(parameterized.TestCase):

  @parameterized.parameters(*PATHS)
  def test_builds_in_every_variant(self, path):
    module = load(path)
    names = variants(module)
    self.assertIn("smoke", names)
    for name in ("", *names):
      config = resolved(self, module.get_config(name))
      experiment.check(config)
      spec = experiment.dataset(config)
      model = experiment.build_model(config, spec)
      experiment.augmentation(config, spec)
      experiment.inference_settings(config)
      tx, _ = optim.make(config["optim"], total_steps=config["total_steps"])
      size = config["data"]["crop_size"]
      out, variables = jax.eval_shape(
          lambda model=model, size=size: model.init_with_output(
              jax.random.key(0), jnp.zeros((1, *size, 3)), train=False
          )
      )
      # The outputs of training: the loss supervises each of them once. A
      # prediction that is a sum of outputs is supervised through these.
      supervised = set(out) - ({"logits"} if "mask_logits" in out else set())
      self.assertSameElements(supervised, config["loss"])
      for term in config["loss"].values():
        self.assertIn(term["loss"], losses.LOSSES)
      # Multipliers name parts that exist.
      params = variables["params"]
      jax.eval_shape(lambda p, tx=tx: tx.update(p, tx.init(p), p)[0], params)

  @parameterized.parameters(*PATHS)
  def test_an_unknown_variant_is_refused(self, path):
    with self.assertRaisesRegex(ValueError, "smoke"):
      load(path).get_config("smok")

  @parameterized.parameters(*PATHS)
  def test_the_docstring_says_command_reference_and_result(self, path):
    doc = load(path).__doc__
    self.assertIn(f"--config {path}", doc)
    self.assertIn("Ours:", doc)

  def test_the_learning_rates_are_data(self):
    for path in PATHS:
      rate = load(path).get_config().optim.learning_rate
      self.assertTrue(np.isfinite(rate) and rate > 0)


if __name__ == "__main__":
  absltest.main()
