"""Every config is described, and its smoke variant goes from end to end.

The rows of the papers' tables are trained for two steps; `-k "row and SANet"`
chooses those of a paper.

`.ci/run` runs `-k family`, with programs for one device that are not optimised:
compiling them takes the time, as they run for a few steps.
"""

import contextlib
import io
import json
import pathlib
import re
import runpy
import shlex
import shutil
import signal
import sys
import tempfile
from unittest import mock

from absl import flags
from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import miniatures
import numpy as np
import pytest
import test_configs
import tiny

from benchmarks import sizes
from benchmarks.papers import catalogue
from ctxseg_jax import commands
from ctxseg_jax import describe
from ctxseg_jax import experiment
from ctxseg_jax.data import packing
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.models.backbones import cifar_resnet
from ctxseg_jax.models.backbones import resnet

# What CI runs: one of each task, backbone and kind of state. All take an hour.
FAMILIES = tuple(
    f"configs/{name}.py"
    for name in ("camvid/encnet", "cifar10/encnet", "voc/fcn")
)

SIZE = (96, 128)  # Of all images but those of CIFAR-10.


def command(name, *arguments):
  """Runs a command in this process, so that compiled programs are shared.

  Args:
    name: A script, "train.py", or a module.
    *arguments: Its flags.
  """
  streams = [io.TextIOWrapper(io.BytesIO()) for _ in range(2)]
  run = runpy.run_path if name.endswith(".py") else runpy.run_module
  handler = signal.getsignal(signal.SIGINT)
  try:
    with (
        mock.patch.object(sys, "argv", [name, *map(str, arguments)]),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
      run(name, run_name="__main__")
  except SystemExit as e:
    if e.code:
      streams[1].seek(0)
      log = streams[1].read()
      raise AssertionError(f"{name}: exit code {e.code}: {log}") from e
  finally:
    signal.signal(signal.SIGINT, handler)
    # Its own flags, those that `commands` defines for it and the overrides, not
    # those of modules it imports.
    by_module = flags.FLAGS.flags_by_module_dict()
    own = (name, commands.__name__)
    names = {flag.name for module in own for flag in by_module.get(module, ())}
    for flag in list(flags.FLAGS):
      if flag in names or flag.startswith("config"):
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()


@pytest.mark.slow
class DescribeTest(parameterized.TestCase):

  @parameterized.parameters(*test_configs.PATHS)
  def test_is_described(self, path):
    run = test_configs.parsed(self, test_configs.load(path).get_config())
    model = experiment.build_model(run.config["model"], run.spec.num_classes)
    size = run.augmentation.crop_size
    report = describe.describe(model, size)
    variables = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), jnp.zeros((1, *size, 3)), train=False
        )
    )
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    self.assertEqual(report["parameters"], count)
    self.assertEqual(sum(report["parameters_by_part"].values()), count)
    self.assertGreater(report["macs_by_part"]["backbone"], 1_000_000)
    self.assertEqual(report["macs"], sum(report["macs_by_operation"].values()))


class _RunsTest(parameterized.TestCase):
  """Runs commands on miniatures of the data sets."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.root = pathlib.Path(folder.name)
    miniatures.write_custom(cls.root / "own", size=SIZE)
    miniatures.photo("2007_000000", SIZE).save(cls.root / "photo.png")
    # Compiling takes the time: all kinds of blocks, but few of each.
    blocks = {18: (1, 1, 1, 1), 34: (1, 1, 1, 3), 50: (1, 1, 1, 3)}
    cls.enterClassContext(mock.patch.dict(resnet.STAGE_SIZES, blocks))
    cls.enterClassContext(
        mock.patch.object(cifar_resnet, "BLOCKS_PER_GROUP", 1)
    )

  def _train(self, path, variants, workdir, *arguments):
    data = test_configs.load(path).get_config(variants).data
    given = [
        f"--config={path}:{variants}",
        f"--config.data.data_dir={self.root / 'data'}",
        f"--workdir={workdir}",
        *arguments,
    ]
    if data.name == "custom":
      given.append(f"--config.data.root={self.root / 'own'}")
    elif DATASETS[data.name].needs_source:
      source = self.root / "sources" / data.name
      if not source.exists():
        miniatures.WRITERS[data.name](source, size=SIZE)
        packing.prepare(
            DATASETS[data.name],
            self.root / "data",
            source=source,
            any_size=True,
        )
    command("train.py", *given)


@pytest.mark.slow
class SmokeTest(_RunsTest):

  def _evaluate(self, workdir, *arguments):
    """Returns the confusion matrix that `eval.py` finds."""
    command("eval.py", f"--workdir={workdir}", *arguments)
    step = 0 if "converted" in str(workdir) else 4
    report = json.loads((workdir / "eval" / f"{step}.json").read_text())
    return report["confusion_matrix"]

  @parameterized.parameters(*FAMILIES)
  def test_family(self, path):
    self._check(path, "")

  @parameterized.parameters(
      *(
          (path, variants)
          for path in test_configs.PATHS
          for variants in test_configs.networks(test_configs.load(path))
          if variants or path not in FAMILIES
      )
  )
  def test_other(self, path, variants):
    self._check(path, variants)

  def _check(self, path, variants):
    """Goes from training to another file and back."""
    variants = f"{variants},smoke".lstrip(",")
    workdir = self.root / "runs" / f"{path}_{variants}".replace("/", "_")
    self._train(path, variants, workdir)
    report = json.loads((workdir / "eval" / "4.json").read_text())
    digest = tiny.digest(workdir, 4)
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
      self.assertTrue(np.isfinite(json.loads(line).get("loss/total", 0.0)))
    self.assertTrue((workdir / "curves.png").is_file())
    self.assertNotEmpty(list((workdir / "predictions").glob("*.png")))

    # As if it had been killed after step 2.
    for folder in (workdir / "checkpoints" / "4", workdir / "best"):
      shutil.rmtree(folder)
    (workdir / "eval" / "4.json").unlink()
    self._train(path, variants, workdir)
    self.assertEqual(tiny.digest(workdir, 4), digest)

    counts = self._evaluate(workdir, "--checkpoint=last")
    self.assertEqual(counts, report["confusion_matrix"])
    command(
        "predict.py",
        f"--workdir={workdir}",
        f"--images={self.root / 'photo.png'}",
        f"--output={workdir / 'output'}",
    )
    self.assertNotEmpty(list((workdir / "output").iterdir()))

    weights = workdir / "network.safetensors"
    command(
        "ctxseg_jax.pretrained.export",
        f"--workdir={workdir}",
        f"--output={weights}",
    )
    converted = workdir / "converted"
    command(
        "ctxseg_jax.pretrained.convert",
        "--source=ctxseg_jax",
        f"--checkpoint={weights}",
        f"--output={converted}",
    )
    self.assertEqual(self._evaluate(converted), counts)


def rows_of_papers():
  """Yields a name, config and flags of `eval.py` for each row's command."""
  seen = set()
  for paper in catalogue.load():
    for row in (row for table in paper.tables for row in table.rows):
      case = (paper.name, row.config, row.evaluate)
      if case not in seen:
        seen.add(case)
        name = f"{paper.name}_{row.config}_{row.evaluate}"
        yield (re.sub(r"\W+", "_", name), row.config, row.evaluate)


@pytest.mark.slow
class PapersTest(_RunsTest):
  """The command of every row; `-k` chooses a paper by its name.

  Configs that are the same at the size of smoke variants are trained once.
  """

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.trained = {}

  @parameterized.named_parameters(*rows_of_papers())
  def test_row(self, config, evaluate):
    file, _, variants = config.partition(":")
    variants = f"{variants},smoke".lstrip(",")
    content = sizes.config(f"{file}:{variants}").to_json_best_effort()
    workdir = self.trained.get(content)
    if workdir is None:
      workdir = self.root / "papers" / str(len(self.trained))
      path = f"configs/{file}"
      self._train(path, variants, workdir, "--config.total_steps=2")
      lines = (workdir / "metrics.jsonl").read_text().splitlines()
      losses = [json.loads(line).get("loss/total", 0.0) for line in lines]
      self.assertTrue(np.all(np.isfinite(losses)))
      self.assertTrue((workdir / "eval" / "2.json").is_file())
      self.trained[content] = workdir
    if evaluate:
      command("eval.py", f"--workdir={workdir}", *shlex.split(evaluate))


if __name__ == "__main__":
  absltest.main()
