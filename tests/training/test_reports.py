"""Tests for ctxseg_jax.training.reports."""

import json
import pathlib
import tempfile
import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import flax.struct
import jax.numpy as jnp
import numpy as np
import tiny

from ctxseg_jax import errors
from ctxseg_jax.data.datasets import context_scenes
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import preemption
from ctxseg_jax.training import reports
from ctxseg_jax.training import workdir


@flax.struct.dataclass
class State:
  step: jnp.ndarray
  variables: dict


def make_report(score):
  path = tiny.finished_run() / "eval" / "12.json"
  return json.loads(path.read_text()) | {"miou": score}


class ReportsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.folder = self.enter_context(
        workdir.Workdir(pathlib.Path(folder) / "run")
    )
    self.checkpoints = self.enter_context(
        checkpoint.Checkpoints(self.folder.checkpoints)
    )

  def open(self, start):
    """Returns the reports of a run that starts at a step."""
    run = types.SimpleNamespace(
        spec=context_scenes.SPEC,
        data=types.SimpleNamespace(eval_split="val"),
        eval_every=10,
        total_steps=40,
        protocol=None,
        config={"total_steps": 40},
        num_pictures=4,
    )
    opened = reports.Reports(
        run,
        None,
        range(10),
        self.folder,
        self.checkpoints,
        preemption.StopRequest(),
        start,
    )
    self.folder.metrics.start(start, opened.done(start))
    return opened

  def run_evaluations(self, opened, scores, kept=None):
    for step, score in scores.items():
      result = (make_report(score), kept or {})
      with mock.patch.object(evaluate, "evaluate", return_value=result):
        opened.evaluate(step, State(jnp.int32(step), {}))

  def best(self):
    return checkpoint.load(self.folder.best)[1]

  @parameterized.parameters(
      ({10: np.nan, 20: 0.3, 30: 0.2}, 20),
      ({10: 0.3, 20: np.nan, 30: 0.2}, 10),
      ({10: np.nan, 20: np.nan}, 10),
      ({10: 0.0, 20: 0.0, 30: 0.1}, 30),
  )
  def test_an_undefined_score_is_below_any_other(self, scores, expected):
    self.run_evaluations(self.open(0), scores)
    self.assertEqual(self.best(), expected)

  def test_a_resumed_run_knows_the_best_and_undefined_scores(self):
    self.run_evaluations(self.open(0), {10: np.nan, 20: 0.3, 30: np.nan})
    self.run_evaluations(self.open(30), {40: 0.2})
    self.assertEqual(self.best(), 20)

  def test_all_scores_are_logged_with_every_evaluation(self):
    folder = tiny.finished_run()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "eval/miou" in row]
    self.assertEqual([row["step"] for row in rows], [6, 12])
    for row in rows:
      path = folder / "eval" / f"{row['step']}.json"
      report = json.loads(path.read_text())
      for name in ("miou", "pixel_accuracy", "fwiou"):
        self.assertAlmostEqual(row[f"eval/{name}"], report[name])

  def test_a_finished_run_without_a_score_is_described_again(self):
    self.run_evaluations(self.open(0), {40: np.nan})
    self.assertIn(
        '"miou": null', (self.folder.evaluations / "40.json").read_text()
    )
    self.open(40).finish()
    self.assertTrue((self.folder.path / "curves.png").exists())

  def test_the_page_shows_the_extremes_of_the_last_evaluation(self):
    example = (np.zeros((8, 9, 3), np.uint8), *np.zeros((2, 8, 9), np.uint8))
    kept = {i: (*example, f"image {i}") for i in (0, 4)}
    opened = self.open(0)
    self.run_evaluations(opened, {30: 0.3, 40: 0.2}, kept)
    opened.finish()
    text = self.folder.report.read_text()
    for shown in ('"step": 40', '"best": [30, 0.3]', "image 4"):
      self.assertIn(shown, text)
    # Image 0 alone is one of those whose pictures are kept of every step.
    names = sorted(path.name for path in self.folder.predictions.iterdir())
    self.assertEqual(
        names, ["0000030_00000_image 0.png", "0000040_00000_image 0.png"]
    )
    self.open(40).finish()  # Of a process that evaluated nothing.
    self.assertEqual(self.folder.report.read_text(), text)

  @parameterized.parameters(
      {}, {"miou": "high"}, {"confusion_matrix": [[1]]}, {"class_names": None}
  )
  def test_what_is_no_report_is_named_at_the_start(self, **forged):
    self.run_evaluations(self.open(0), {10: 0.3})
    path = self.folder.evaluations / "10.json"
    path.write_text(json.dumps(make_report(0.5) | forged if forged else {}))
    with self.assertRaisesRegex(errors.UserError, "eval/10.json"):
      self.open(10)

  def test_scores_are_rows_of_the_metrics(self):
    self.run_evaluations(self.open(0), {10: 0.25})
    (row,) = self.folder.metrics.read()
    self.assertEqual((row["step"], row["eval/miou"]), (10, 0.25))

  def test_the_best_is_a_step_that_the_run_can_go_back_to(self):
    opened = self.open(0)
    self.checkpoints.save(10, {"step": jnp.int32(10)})
    self.run_evaluations(opened, {10: 0.5})
    self.assertEqual(self.checkpoints.steps(), [10])


if __name__ == "__main__":
  absltest.main()
