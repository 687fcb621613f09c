"""Every config builds, and its docstring has command, reference and result."""

import fnmatch
import functools
import importlib
import json
import pathlib
import re
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import flax
import miniatures
from ml_collections import config_dict
from networks import abstract

from benchmarks import sizes
from benchmarks.papers import catalogue
from configs import common
from ctxseg_jax import experiment
from ctxseg_jax.models.backbones import cifar_resnet
from ctxseg_jax.models.backbones import efficientnet
from ctxseg_jax.models.backbones import resnet

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


@functools.cache
def traced(section, size):
  """Returns the names of outputs in training, and of parameters.

  Args:
    section: The section `model` of a config, as JSON.
    size: (H, W) of the images.
  """
  model = experiment.build_model(json.loads(section), num_classes=5)
  out, variables = abstract(model, size)
  params = flax.traverse_util.flatten_dict(variables["params"], sep="/")
  return frozenset(out), tuple(params)


def traced_small(run):
  """Returns `traced` of a network that has each kind of block of a run's.

  What a network is made of depends on neither depth, dtype nor, unless a
  parameter is as large as a map, the crop: many are the same then.
  """
  section = run.config["model"]
  backbone = dict(section["backbone"])
  if backbone["name"] == "resnet":
    backbone["depth"] = 34 if backbone["depth"] < 50 else 50
  elif backbone["name"] == "efficientnet":
    lite = backbone["variant"].startswith("lite")
    backbone["variant"] = "lite0" if lite else "b0"
  elif backbone["name"] == "vgg16":
    backbone["channels"] = 8
  small = section | dict(backbone=backbone, dtype="float32")
  section = json.dumps(small, sort_keys=True)
  fixed = "map_size" in section
  return traced(section, run.augmentation.crop_size if fixed else (64, 64))


class ConfigsTest(parameterized.TestCase):

  @parameterized.parameters(*PATHS)
  def test_builds_in_every_variant(self, path):
    module = load(path)
    for name in (*networks(module), "smoke"):
      with self.subTest(name):
        self._check(parsed(self, module.get_config(name)))

  def test_rows_of_the_papers_build(self):
    for paper in catalogue.load():
      rows = [row for table in paper.tables for row in table.rows]
      for name in dict.fromkeys(row.config for row in rows):
        with self.subTest(name):
          self._check(experiment.parse(sizes.config(name)))

  def _check(self, run):
    # Whatever upsamples does it as the network does.
    head = run.model.head
    for part in (head, run.model.aux_head, getattr(head, "host", None)):
      if hasattr(part, "align_corners"):
        self.assertEqual(part.align_corners, run.model.align_corners)
    run.optimizer.make(run.total_steps)
    with (
        mock.patch.dict(
            resnet.STAGE_SIZES, {n: (1, 1, 1, 3) for n in (34, 50)}
        ),
        mock.patch.dict(
            efficientnet.VARIANTS, {n: (1.0, 0.25) for n in ("b0", "lite0")}
        ),
        mock.patch.object(cifar_resnet, "BLOCKS_PER_GROUP", 1),
    ):
      out, params = traced_small(run)
    # The outputs of training: the loss supervises each of them once. A
    # prediction that is a sum of outputs is supervised through these.
    supervised = set(out) - ({"logits"} if "mask_logits" in out else set())
    self.assertSameElements(
        supervised, {term.output for term in run.terms.values()}
    )
    # Multipliers, and what is frozen, name parts that exist.
    for pattern in (*run.optimizer.lr_multipliers, *run.optimizer.freeze):
      names = fnmatch.filter(params, pattern)
      self.assertTrue(names or fnmatch.filter(params, f"{pattern}/*"), pattern)

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


class EncNetTest(parameterized.TestCase):

  @parameterized.parameters("pcontext", "ade20k", "voc")
  def test_network_and_recipe_of_the_paper(self, name):
    module = load(f"configs/{name}/encnet.py")
    config = module.get_config("paper,paper_recipe")
    self.assertEqual(config, module.get_config("paper_recipe,paper"))
    head = config.model.head
    self.assertEqual(
        (head.gate, head.pooling, head.project, head.lateral),
        ("multiply", "sum", False, False),
    )
    self.assertEqual(config.model.aux_head.name, "encoding_aux")
    self.assertEqual(config.loss.aux.output, "aux_se_logits")
    # Rate, epochs and rotation as in section 3.1 of the notes on it.
    rate, epochs, images = {
        "pcontext": (0.001, 50, 4_998),
        "ade20k": (0.01, 120, 20_210),
        "voc": (0.001, 50, 10_582),
    }[name]
    self.assertEqual(config.optim.learning_rate, rate)
    self.assertEqual(config.total_steps, round(epochs * images / 16))
    self.assertEqual(config.data.rotation, 10.0)

  def test_points_of_the_curves_combine_with_the_paper(self):
    get_config = load("configs/pcontext/encnet.py").get_config
    for names in ("alpha04,paper", "paper,alpha04"):
      terms = get_config(names).loss
      self.assertEqual((terms.se.weight, terms.aux.weight), (0.4, 0.4))
    # The code's auxiliary loss is no SE-loss.
    self.assertEqual(get_config("alpha04").loss.aux.weight, 0.2)
    for names in ("k0,paper", "paper,k0"):
      model = get_config(names).model
      self.assertEqual(model.head.num_codewords, 0)
      self.assertEqual(model.aux_head.num_codewords, 0)
    config = get_config("no_se,paper")
    self.assertEqual(config, get_config("paper,no_se"))
    self.assertNotIn("aux_head", config.model)
    self.assertSameElements(config.loss, ["ce"])


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
