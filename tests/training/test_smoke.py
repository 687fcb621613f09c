"""Every config is described; its smoke variant runs from end to end."""

import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import miniatures
import numpy as np
import pytest
import test_configs

from ctxseg_jax import describe
from ctxseg_jax import experiment
from ctxseg_jax.data import packing
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.evaluation.tasks import TASKS


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


@pytest.mark.slow
class SmokeTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = tempfile.TemporaryDirectory()
    cls.root = pathlib.Path(cls.folder.name)
    miniatures.write_custom(cls.root / "own")

  @classmethod
  def tearDownClass(cls):
    cls.folder.cleanup()
    super().tearDownClass()

  def _prepare(self, name):
    if name in DATASETS and DATASETS[name].needs_source:
      source = self.root / "sources" / name
      if not source.exists():
        miniatures.WRITERS[name](source, size=(96, 128))
      packing.prepare(
          DATASETS[name], self.root / "data", source=source, any_size=True
      )

  @parameterized.parameters(*test_configs.PATHS)
  def test_runs(self, path):
    config = test_configs.load(path).get_config("smoke")
    config.data.data_dir = str(self.root / "data")
    self._prepare(config.data.name)
    if config.data.name == "custom":
      config.data.root = str(self.root / "own")
    workdir = self.root / path.replace("/", "_")
    state = experiment.train_and_evaluate(config, str(workdir))
    self.assertEqual(int(state.step), config.total_steps)
    report = json.loads(
        (workdir / "eval" / f"{config.total_steps}.json").read_text()
    )
    score = TASKS[experiment.parse(config).spec.task].score
    self.assertBetween(report[score], 0.0, 1.0)
    self.assertTrue((workdir / "curves.png").is_file())
    self.assertNotEmpty(list((workdir / "predictions").glob("*.png")))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    for line in lines:
      self.assertTrue(np.isfinite(json.loads(line)["loss/total"]))


if __name__ == "__main__":
  absltest.main()
