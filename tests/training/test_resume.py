"""A run that is stopped, however it is stopped, ends as if it had not been."""

import collections
import contextlib
import itertools
import json
import pathlib
import random
import re
import signal
import tempfile
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import faults
import numpy as np
import pytest
import tiny

from configs import quickstart
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import pipeline
from ctxseg_jax.training import checkpoint


class ResumeCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    directory = self.enterContext(tempfile.TemporaryDirectory())
    self.workdir = pathlib.Path(directory) / "run"

  def finish(self, *flags):
    """Runs the same command until it is done."""
    result = tiny.train(self.workdir, *flags)
    self.assertEqual(result.code, 0, result.stderr)
    return result

  def assert_same_as_uninterrupted(self):
    reference = tiny.finished_run()
    self.assertEqual(tiny.digest(self.workdir), tiny.digest(reference))
    rows = tiny.losses(self.workdir)
    self.assertEqual([step for step, _ in rows], list(range(1, 13)))
    self.assertEqual(rows, tiny.losses(reference))
    found = tiny.evaluations(self.workdir)
    self.assertSameElements(found, ["6", "12"])
    self.assertEqual(found, tiny.evaluations(reference))
    # Of checkpoints the last and one more, which may be that of a stop.
    for name, compared in (("best", slice(None)), ("checkpoints", slice(1))):
      left, expected = (
          sorted(int(path.name) for path in (run / name).iterdir())[::-1]
          for run in (self.workdir, reference)
      )
      self.assertLen(left, len(expected))
      self.assertEqual(left[compared], expected[compared], f"in {name}/")

  def assert_nothing_runs(self, command):
    """Workers notice within moments that their parent is gone."""
    end = time.monotonic() + 10
    while left := command.children():
      self.assertLess(time.monotonic(), end, f"orphans: {left}")
      time.sleep(0.05)


class StopTest(ResumeCase):

  def test_input_that_fails_costs_no_step_that_was_done(self):
    self.enterContext(tiny.on_one_device())
    config = quickstart.get_config()
    config.batch_size = 8
    config.model.backbone.channels = config.model.head.channels = 8
    config.data.data_dir = tiny.data_dir()
    train_batches = pipeline.train_batches

    def failing_batches(*args, **kwargs):
      with contextlib.closing(train_batches(*args, **kwargs)) as batches:
        yield from itertools.islice(batches, 3)
      raise errors.UserError("record 7: damaged")

    with mock.patch.object(pipeline, "train_batches", failing_batches):
      with self.assertRaisesRegex(errors.UserError, "record 7: damaged"):
        experiment.train_and_evaluate(config, self.workdir)
    _, step = checkpoint.load(self.workdir / "checkpoints")
    self.assertEqual(step, 3)

  def test_the_tiny_run_exercises_what_is_compared(self):
    reference = tiny.finished_run()
    predicted = np.sum(
        tiny.evaluations(reference)["12"]["confusion_matrix"], axis=0
    )
    self.assertGreater(np.count_nonzero(predicted), 3)
    names = {name.split("/")[0] for name in tiny.arrays(reference)}
    self.assertEqual(names, {"step", "params", "model_state", "opt_state"})

  @pytest.mark.slow
  @pytest.mark.timeout(1800)
  def test_25_kills_at_random_moments_leave_no_trace(self):
    seed = time.time_ns() % 2**32
    rng = random.Random(seed)
    print(f"seed {seed}")
    kills = 0
    folder = self.workdir
    moments = collections.Counter()
    while kills < 25:
      self.workdir = folder.with_name(f"run{kills}")
      finished = False
      while not finished:
        moment = rng.choice(["start", "step", "save", "evaluate"])
        workers = rng.choice([0, 0, 1])
        delay = rng.uniform(0, 4.0 if moment == "start" else 0.3)
        if kills < 25 and self._kill(
            _moments(self.workdir)[moment], workers, delay
        ):
          kills += 1
          moments[moment] += 1
        elif kills >= 25 or (self.workdir / "eval" / "12.json").exists():
          self.finish()
          finished = True
      self.assert_same_as_uninterrupted()
    print(f"killed: {dict(moments)}")

  def _kill(self, happened, workers, delay=0.0):
    """Kills the run some time after something; False if it ended before."""
    flag = f"--config.data.num_workers={workers}"
    with tiny.start_training(self.workdir, flag) as command:
      command.wait_for(lambda: happened(command))
      time.sleep(delay)
      if command.ended():
        self.assertEqual(command.result().code, 0, command.stderr())
        return False
      if workers and " step " in command.stderr():
        self.assertNotEmpty(command.children())
      command.send(signal.SIGKILL)
      self.assertEqual(command.result().code, -signal.SIGKILL)
      self.assert_nothing_runs(command)
    return True

  @pytest.mark.slow
  def test_every_fault_point_of_a_save_leaves_no_trace(self):
    for point in faults.POINTS:
      flags = tiny.train_flags(self.workdir)
      result = tiny.run("tests/training/faults.py", point, *flags)
      self.assertEqual(result.code, -signal.SIGKILL, result.stderr)
    # All but the last died before step 4 was complete.
    self.assertIn("Resuming at step 4.", self.finish().stderr)
    self.assert_same_as_uninterrupted()

  def test_a_signal_and_kills_leave_no_trace(self):
    self._stop(signal.SIGTERM, "step 2/", workers=1)
    # While an evaluation runs; between steps, with a process that decodes.
    for text, workers in (("Evaluating", 0), ("step 9/", 1)):
      killed = self._kill(lambda c, text=text: text in c.stderr(), workers)
      self.assertTrue(killed, f"ended before {text!r}")
    self.finish()
    self.assert_same_as_uninterrupted()

  @pytest.mark.slow
  def test_signals_at_other_moments_exit_75(self):
    self._stop(signal.SIGINT, "parameters,", workers=1)
    self._stop(signal.SIGTERM, "Evaluating", workers=0)
    self._stop(signal.SIGINT, "step 7/", workers=0)
    self.finish()
    self.assert_same_as_uninterrupted()

  def _stop(self, number, text, workers):
    flag = f"--config.data.num_workers={workers}"
    with tiny.start_training(self.workdir, flag) as command:
      self.assertTrue(command.wait_for_log(text), command.stderr())
      command.send(number)
      result = command.result()
      self.assert_nothing_runs(command)
    self.assertEqual(result.code, 75, result.stderr)
    self.assertNotIn("Traceback", result.stderr)
    last = result.stderr.splitlines()[-1]
    self.assertRegex(
        last, rf"^stopped by {signal.Signals(number).name} .*step \d+.*saved"
    )
    step = int(re.search(r"step (\d+)", last)[1])
    self.assertLess(step, tiny.STEPS)
    # The step saved is the last one done.
    self.assertEqual(tiny.losses(self.workdir)[-1][0], step)
    self.assertEqual(tiny.arrays(self.workdir, step)["step"], step)


def _moments(workdir):
  """Returns what tells, by name, that a command has come to a moment."""
  metrics = workdir / "metrics.jsonl"
  folder = workdir / "checkpoints"

  def num_bytes():
    return metrics.stat().st_size if metrics.exists() else 0

  bytes_before = num_bytes()
  steps_before = set(folder.glob("*"))
  return {
      "start": lambda command: True,
      "step": lambda command: num_bytes() > bytes_before,
      "save": lambda command: set(folder.glob("*")) - steps_before,
      "evaluate": lambda command: "Evaluating" in command.stderr(),
  }


class WorkdirTest(ResumeCase):

  def test_a_second_trainer_is_told_who_holds_the_work_dir(self):
    with tiny.start_training(self.workdir) as first:
      first.wait_for((self.workdir / "config.json").exists)
      first.send(signal.SIGSTOP)
      second = tiny.train(self.workdir)
      self.assertEqual(second.code, 4, second.stderr)
      self.assertLen(second.errors, 1)
      self.assertIn(f"pid {first.pid} on ", second.errors[0])
      self.assertNotIn("Traceback", second.stderr)
      first.send(signal.SIGCONT)
      self.assertEqual(first.result().code, 0, first.stderr())
    self.assert_same_as_uninterrupted()

  def test_a_changed_config_is_refused_unless_allowed(self):
    tiny.copy_finished_run(self.workdir, step=8)
    before = (self.workdir / "config.json").read_bytes()
    changed = json.loads(before)
    changed["seed"] = 3
    changed["optim"]["momentum"] = 0.8
    with self.assertRaises(errors.UserError) as refused:
      experiment.train_and_evaluate(changed, self.workdir)
    self.assertEqual(refused.exception.exit_code, 2)
    for named in (
        "optim.momentum 0.9 -> 0.8",
        "seed 0 -> 3",
        "--allow_config_change",
    ):
      self.assertIn(named, str(refused.exception))
    self.assertEqual((self.workdir / "config.json").read_bytes(), before)
    # Of another model it cannot go on, and so the config stays.
    changed["model"]["head"]["num_codewords"] = 5
    with self.assertRaisesRegex(errors.UserError, "of another model"):
      experiment.train_and_evaluate(
          changed, self.workdir, allow_config_change=True
      )
    self.assertEqual((self.workdir / "config.json").read_bytes(), before)
    allowed = self.finish("--config.seed=3", "--allow_config_change")
    self.assertIn("seed 0 -> 3", allowed.stderr)
    self.assertIn("Resuming at step 8.", allowed.stderr)
    config = json.loads((self.workdir / "config.json").read_text())
    self.assertEqual(config["seed"], 3)
    self.assertNotEqual(
        tiny.digest(self.workdir), tiny.digest(tiny.finished_run())
    )

  @parameterized.parameters(2, 4)
  @pytest.mark.slow
  def test_a_run_goes_on_with_more_devices(self, devices):
    tiny.copy_finished_run(self.workdir, step=8)
    result = tiny.train(self.workdir, devices=devices)
    self.assertEqual(result.code, 0, result.stderr)
    self.assertIn("Resuming at step 8.", result.stderr)
    self.assertIn(f"CpuDevice(id={devices - 1})", result.stderr)
    expected = tiny.arrays(tiny.finished_run())
    found = tiny.arrays(self.workdir)
    self.assertSameElements(found, expected)
    for name, array in expected.items():
      np.testing.assert_allclose(
          found[name], array, rtol=1e-5, atol=1e-5, err_msg=name
      )


class NonFiniteTest(ResumeCase):

  @pytest.mark.slow
  def test_after_a_loss_that_is_nan_nothing_is_saved(self):
    self._assert_stops("1e30", r"^error: loss/total is nan at step \d+ ")

  def test_a_poisoned_state_is_never_saved(self):
    # Running variances overflow one step before the loss does.
    self._assert_stops(
        "1e10", r"^error: model_state/\S+ is not finite at step \d+ "
    )

  def _assert_stops(self, rate, message):
    result = tiny.train(
        self.workdir,
        f"--config.optim.learning_rate={rate}",
        "--config.checkpoint_every=1",
    )
    self.assertEqual(result.code, 3, result.stderr)
    self.assertNotIn("Traceback", result.stderr)
    self.assertLen(result.errors, 1)
    self.assertRegex(result.errors[0], message)
    state, newest = checkpoint.load(self.workdir / "checkpoints")
    self.assertIn(f"last good checkpoint: {newest};", result.errors[0])
    self.assertEqual(int(state["step"]), newest)
    for name, array in tiny.arrays(self.workdir, newest).items():
      self.assertTrue(np.all(np.isfinite(array)), name)


if __name__ == "__main__":
  absltest.main()
