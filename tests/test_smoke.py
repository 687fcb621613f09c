"""The smoke variant of every config trains and evaluates from end to end."""

import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image
import pytest
import test_configs

from ctxseg_jax import experiment
from ctxseg_jax import loop
from ctxseg_jax.data import DATASETS
from ctxseg_jax.data import prepare


def make_camvid(root):
  """Writes a miniature in the layout of the SegNet tutorial."""
  rng = np.random.default_rng(0)
  for split, count in (("train", 9), ("val", 2), ("test", 3)):
    for kind in (split, f"{split}annot"):
      (root / kind).mkdir(parents=True)
    for i in range(count):
      image = rng.integers(0, 256, (96, 128, 3)).astype(np.uint8)
      label = rng.integers(0, 12, (96, 128)).astype(np.uint8)
      Image.fromarray(image).save(root / split / f"{split}{i}.png")
      Image.fromarray(label).save(root / f"{split}annot" / f"{split}{i}.png")


@pytest.mark.slow
class SmokeTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = tempfile.TemporaryDirectory()
    cls.root = pathlib.Path(cls.folder.name)
    make_camvid(cls.root / "CamVid")
    miniatures.write_custom(cls.root / "own")
    prepare.prepare(
        DATASETS["camvid"],
        cls.root / "data",
        source=cls.root / "CamVid",
        any_size=True,
    )

  @classmethod
  def tearDownClass(cls):
    cls.folder.cleanup()
    super().tearDownClass()

  @parameterized.parameters(*test_configs.PATHS)
  def test_runs(self, path):
    config = test_configs.load(path).get_config("smoke")
    config.data.data_dir = str(self.root / "data")
    if config.data.name == "custom":
      config.data.root = str(self.root / "own")
    workdir = self.root / path.replace("/", "_")
    state = loop.train_and_evaluate(config, str(workdir))
    self.assertEqual(int(state.step), config.total_steps)
    report = json.loads(
        (workdir / "eval" / f"{config.total_steps}.json").read_text()
    )
    score = experiment.task(config.to_dict()).score
    self.assertBetween(report[score], 0.0, 1.0)
    self.assertTrue((workdir / "curves.png").is_file())
    self.assertNotEmpty(list((workdir / "predictions").glob("*.png")))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    for line in lines:
      self.assertTrue(np.isfinite(json.loads(line)["loss/total"]))


if __name__ == "__main__":
  absltest.main()
