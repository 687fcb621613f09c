"""Every config builds, and its docstring has command, reference and result."""

import importlib
import pathlib
import re
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import miniatures
from ml_collections import config_dict

from configs import common
from ctxseg_jax import experiment

ROOT = pathlib.Path(__file__).parent.parent
PATHS = [
    str(p.relative_to(ROOT))
    for p in sorted((ROOT / "configs").rglob("*.py"))
    if p.name not in ("__init__.py", "common.py", "recipes.py")
]


def load(path):
  """Returns the module of a config."""
  return importlib.import_module(".".join(pathlib.Path(path).parts)[:-3])


def parsed(test, config):
  """Returns a parsed config, of own data where it is to be given some."""
  if config.data.name == "custom":
    folder = test.enterContext(tempfile.TemporaryDirectory())
    config.data.root = folder
    miniatures.write_custom(pathlib.Path(folder))
  return experiment.parse(config)


def networks(module):
  """Returns the variants of a config, "" first, without `smoke`."""
  return ["", *(name for name in module.VARIANTS if name != "smoke")]


class ConfigsTest(parameterized.TestCase):

  @parameterized.parameters(*PATHS)
  def test_builds_in_every_variant(self, path):
    module = load(path)
    for name in (*networks(module), "smoke"):
      run = parsed(self, module.get_config(name))
      # Whatever upsamples does it as the network does.
      head = run.model.head
      for part in (head, run.model.aux_head, getattr(head, "host", None)):
        if hasattr(part, "align_corners"):
          self.assertEqual(part.align_corners, run.model.align_corners)
      tx, _ = run.optimizer.make(run.total_steps)
      size = run.augmentation.crop_size
      out, variables = jax.eval_shape(
          lambda model=run.model, size=size: model.init_with_output(
              jax.random.key(0), jnp.zeros((1, *size, 3)), train=False
          )
      )
      # The outputs of training: the loss supervises each of them once. A
      # prediction that is a sum of outputs is supervised through these.
      supervised = set(out) - ({"logits"} if "mask_logits" in out else set())
      self.assertSameElements(
          supervised, {term.output for term in run.terms.values()}
      )
      # Multipliers name parts that exist.
      params = variables["params"]
      jax.eval_shape(lambda p, tx=tx: tx.update(p, tx.init(p), p)[0], params)

  @parameterized.parameters(*PATHS)
  def test_the_docstring_has_command_variants_and_result(self, path):
    module = load(path)
    self.assertIn(f"--config {path}", module.__doc__)
    self.assertRegex(module.__doc__, r"\nOurs: |\. Ours: ")
    for name in module.VARIANTS:
      self.assertIn(f"`{name}`", module.__doc__)
    for names in re.findall(r"\n(?:Ours|Reference) of (.*?):", module.__doc__):
      for name in re.findall(r"`([\w,]+)`", names):
        module.get_config(name)

  def test_the_checkpoint_is_not_chosen_on_the_reported_split(self):
    for path in PATHS:
      data = load(path).get_config().data
      if data.name != "cifar10":  # Published without another split.
        self.assertStartsWith(data.eval_split, "val", path)


class VariantsTest(absltest.TestCase):

  def _applied(self, names):
    def change(name):
      return lambda config: setattr(config, "seen", config.seen + name)

    config = config_dict.ConfigDict(dict(seen="", loss={}))
    table = {name: change(name) for name in ("a", "b", "smoke")}
    return common.apply_variants(config, names, table).seen

  def test_they_apply_in_order_and_smoke_last(self):
    self.assertEqual(self._applied(""), "")
    self.assertEqual(self._applied("b,a"), "ba")
    self.assertEqual(self._applied("smoke,b,a"), "basmoke")

  def test_an_unknown_one_is_refused(self):
    for names in ("c", "a,c", "a,", "a, b"):
      with self.assertRaisesRegex(
          ValueError, "^unknown variant '.*a, b, smoke"
      ):
        self._applied(names)

  def test_both_orders_of_the_baseline_are_one(self):
    module = load("configs/camvid/encnet.py")
    config = module.get_config("r50,fcn")
    self.assertEqual(config, module.get_config("fcn,r50"))
    self.assertEqual(
        config.model.head.to_dict(), dict(name="fcn", channels=512)
    )


if __name__ == "__main__":
  absltest.main()
