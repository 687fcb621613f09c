"""COCO, then VOC with SBD, then VOC alone: each run starts from the last."""

import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import jax
import miniatures
import numpy as np
import pytest
import test_smoke

from ctxseg_jax.data import packing
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import weights


def parameters(workdir):
  """Returns all parameters of the last step as one vector."""
  state, step = checkpoint.load(workdir / "checkpoints")
  assert step == 4, step
  leaves = jax.tree.leaves(weights.variables(state)["params"])
  return np.concatenate([np.ravel(x) for x in leaves])


@pytest.mark.slow
class ChainTest(absltest.TestCase):

  def test_three_commands(self):
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.enterContext(mock.patch.dict(resnet.STAGE_SIZES, {18: (1, 1, 1, 1)}))
    for name in ("coco_voc21", "voc2012"):
      miniatures.WRITERS[name](root / name)
      packing.prepare(
          DATASETS[name], root / "data", source=root / name, any_size=True
      )
    vectors, before = [], None
    for i, changes in enumerate(
        (
            dict(data=dict(name="coco_voc21", train_split="train")),
            dict(),
            dict(
                data=dict(train_split="trainval"),
                optim=dict(learning_rate=1e-4),
            ),
        )
    ):
      workdir = root / f"run{i}"
      given = [
          f"--config.{section}.{key}={value}"
          for section, values in changes.items()
          for key, value in values.items()
      ]
      if before:
        given.append("--config.init_from.source=ctxseg_jax")
        given.append(f"--config.init_from.path={before}")
      test_smoke.command(
          "train.py",
          "--config=configs/voc/encnet.py:smoke",
          f"--config.data.data_dir={root / 'data'}",
          f"--config.seed={i}",  # Random values would be others.
          f"--workdir={workdir}",
          *given,
      )
      before = workdir
      vectors.append(parameters(workdir))
      config = json.loads((workdir / "config.json").read_text())
      lines = (workdir / "metrics.jsonl").read_text().splitlines()
      rates = [json.loads(x).get("learning_rate", 0.0) for x in lines]
      self.assertAlmostEqual(
          max(rates), config["optim"]["learning_rate"] * 0.75**0.9, places=6
      )
      report = json.loads((workdir / "eval" / "4.json").read_text())
      self.assertEqual(report["dataset"], ["coco_voc21", "voc2012"][i > 0])
    self.assertAlmostEqual(max(rates), 0.772e-4, places=6)
    for old, new in zip(vectors, vectors[1:], strict=False):
      moved = np.linalg.norm(new - old) / np.linalg.norm(old)
      self.assertBetween(moved, 1e-6, 0.2)  # Of other random values it is 1.15.


if __name__ == "__main__":
  absltest.main()
