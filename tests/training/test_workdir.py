"""Tests for ctxseg_jax.workdir."""

import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import textwrap

from absl import logging as absl_logging
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.training import workdir

CONFIG = {
    "seed": 0,
    "total_steps": 100,
    "optim": {"lr": 0.01, "schedule": {"name": "poly"}},
    "data": {"num_workers": 2, "crop_size": (65, 65)},
}

# Holds a work dir until it is killed.
HOLDER = textwrap.dedent("""
    import sys
    import time
    sys.path.insert(0, sys.argv[2])
    from ctxseg_jax.training import workdir

    with workdir.Workdir(sys.argv[1]):
      print("locked", flush=True)
      time.sleep(60)
""")


def changed(**changes):
  """Returns CONFIG with `section__key=value` replaced or added."""
  config = json.loads(json.dumps(CONFIG))
  for name, value in changes.items():
    *sections, key = name.split("__")
    node = config
    for section in sections:
      node = node[section]
    node[key] = value
  return config


class WorkdirCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    directory = self.enterContext(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(directory) / "runs" / "a"


class LockTest(WorkdirCase):

  def test_second_run_is_refused_and_told_by_whom(self):
    with workdir.Workdir(self.path):
      with self.assertRaisesRegex(
          errors.WorkdirLockedError, rf"{self.path}.*pid {os.getpid()} on "
      ):
        workdir.Workdir(self.path).__enter__()
    with workdir.Workdir(self.path):
      pass

  def test_kill_frees_the_lock(self):
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLDER, self.path, root]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with holder:
      self.assertEqual(holder.stdout.readline().strip(), "locked")
      with self.assertRaisesRegex(
          errors.WorkdirLockedError, f"pid {holder.pid} on "
      ):
        workdir.Workdir(self.path).__enter__()
      holder.send_signal(signal.SIGKILL)
    with workdir.Workdir(self.path):
      pass

  def test_path_that_is_a_file(self):
    self.path.parent.mkdir()
    self.path.write_text("")
    for path in (self.path, self.path / "below"):
      with self.assertRaisesRegex(
          errors.UserError, f"{path}.*(exists|Not a dir)"
      ):
        workdir.Workdir(path).__enter__()

  def test_path_that_cannot_be_written(self):
    if os.getuid() == 0:
      path = pathlib.Path("/proc/ctxseg")  # Not even for root.
    else:
      self.path.mkdir(parents=True)
      self.path.chmod(0o555)
      path = self.path
    with self.assertRaisesRegex(errors.UserError, str(path)):
      workdir.Workdir(path).__enter__()


class MarkTest(WorkdirCase):
  """A run writes into an empty folder, or one that a run has made."""

  def contents(self):
    return {
        str(path.relative_to(self.path)): path.read_bytes()
        for path in self.path.rglob("*")
        if path.is_file()
    }

  @parameterized.parameters(
      "checkpoints/1000/weights.bin", "best/7/a", "config.json", ".hidden"
  )
  def test_a_folder_of_another_program_is_left_alone(self, name):
    (self.path / name).parent.mkdir(parents=True)
    (self.path / name).write_text("{}")
    before = self.contents()
    with self.assertRaisesRegex(
        errors.UserError, rf"not a work dir.*{name.split('/')[0]}.*--workdir"
    ):
      workdir.Workdir(self.path).__enter__()
    self.assertEqual(self.contents(), before)

  def test_an_empty_folder_and_a_run_of_ours_are_fine(self):
    self.path.mkdir(parents=True)
    for _ in range(2):
      with workdir.Workdir(self.path):
        (self.path / "notes.txt").write_text("mine")

  @parameterized.parameters("gs://bucket/run", "s3://a/b", "file:///tmp/run")
  def test_a_url_is_refused_by_name(self, url):
    with self.assertRaisesRegex(errors.UserError, f"--workdir: {url}.*Mount"):
      workdir.Workdir(url)

  def test_home_is_expanded(self):
    self.assertEqual(workdir.Workdir("~/run").path, pathlib.Path.home() / "run")

  @parameterized.parameters(pathlib.Path.touch, os.mkdir, os.mkfifo)
  def test_something_of_another_kind_is_found_at_the_start(self, make):
    names, kind = (
        "log.txt",
        "metrics.jsonl",
        "curves.png",
        "config.json",
    ), "reg"
    if make == pathlib.Path.touch:
      names, kind = ("eval", "predictions", "tensorboard", "best"), "folder"
    for name in names:
      path = self.path.with_name(name)
      with workdir.Workdir(path):
        make(path / name)
      with self.assertRaisesRegex(
          errors.UserError, f"{name}: expected a {kind}"
      ):
        workdir.Workdir(path).__enter__()

  @parameterized.parameters("best/600", "eval/600.json")
  def test_results_without_checkpoints_are_not_replaced(self, name):
    with workdir.Workdir(self.path) as work:
      work.check_fresh()
      (self.path / name).mkdir(parents=True)
      with self.assertRaisesRegex(errors.UserError, f"{name}.*copy them back"):
        work.check_fresh()


class ConfigTest(WorkdirCase):

  def write(self, config, **kwargs):
    with workdir.Workdir(self.path) as work:
      work.check_config(config, **kwargs)
      work.write_config(config)

  def test_is_read_as_written(self):
    self.write(CONFIG)
    self.assertEqual(workdir.read_config(self.path), changed())
    self.write(CONFIG)  # Tuples are lists in JSON: still no change.

  def test_changes_are_listed(self):
    self.write(CONFIG)
    config = changed(optim__lr=0.02, optim__schedule__name="cos", extra=1)
    del config["seed"]
    with self.assertRaises(errors.UserError) as caught:
      self.write(config)
    message = str(caught.exception)
    self.assertIn(
        'extra (absent) -> 1, optim.lr 0.01 -> 0.02, optim.schedule.name "poly"'
        ' -> "cos", seed 0 -> (absent);',
        message,
    )
    self.assertIn("--allow_config_change", message)
    self.assertNotIn("\n", message)
    self.assertEqual(workdir.read_config(self.path)["optim"]["lr"], 0.01)
    self.write(config, allow_change=True)
    self.assertEqual(workdir.read_config(self.path)["optim"]["lr"], 0.02)

  @parameterized.parameters("data.num_workers", "data")
  def test_ignored_keys_may_change(self, ignore):
    self.write(CONFIG)
    self.write(changed(data__num_workers=8), ignore=(ignore,))
    self.assertEqual(workdir.read_config(self.path)["data"]["num_workers"], 8)
    with self.assertRaisesRegex(errors.UserError, "total_steps"):
      self.write(changed(total_steps=7), ignore=(ignore,))

  def test_one_and_true_differ(self):
    self.write(changed(seed=1))
    with self.assertRaisesRegex(errors.UserError, "seed 1 -> true"):
      self.write(changed(seed=True))

  @parameterized.parameters("", '{"seed": ', "[1]")
  def test_absent_or_broken_config(self, text):
    with self.assertRaisesRegex(
        errors.UserError, "no config.json in .*is this a work dir of train.py"
    ):
      workdir.read_config(self.path)
    self.write(CONFIG)
    (self.path / "config.json").write_text(text)
    with self.assertRaisesRegex(errors.UserError, "config.json"):
      workdir.read_config(self.path)


class EvaluationsTest(WorkdirCase):

  def setUp(self):
    super().setUp()
    self.work = self.enter_context(workdir.Workdir(self.path))

  def test_are_read_by_step_with_nan_for_null(self):
    for step in (100, 20):
      with self.work.writing_evaluation(step) as write:
        path = write({"miou": np.nan, "iou": np.array([np.nan, 1.0])})
    self.assertEqual(path, self.path / "eval" / "20.json")
    reports = self.work.read_evaluations()
    self.assertEqual([report["step"] for report in reports], [20, 100])
    for report in reports:
      np.testing.assert_equal(report["miou"], np.nan)
      np.testing.assert_equal(report["iou"], [np.nan, 1.0])

  @parameterized.parameters("", '{"miou": 0.', "[1]", "[" * 100_000)
  def test_a_torn_one_is_named(self, text):
    (self.path / "eval").mkdir()
    (self.path / "eval" / "20.json").write_text(text)
    with self.assertRaisesRegex(errors.UserError, "eval/20.json"):
      self.work.read_evaluations()


class LogFileTest(WorkdirCase):

  def test_a_second_run_of_a_process_writes_into_its_own_alone(self):
    for name in ("a", "b"):
      with workdir.Workdir(self.path / name) as work:
        work.start_log()
        absl_logging.warning("run %s", name)
    absl_logging.warning("no run")
    for name in ("a", "b"):
      lines = (self.path / name / "log.txt").read_text().splitlines()
      self.assertEqual(
          [line.split("Z ")[1] for line in lines], [f"WARNING run {name}"]
      )

  def test_times_are_utc(self):
    logger = absl_logging.get_absl_logger()
    with workdir.Workdir(self.path) as work:
      work.start_log()
      record = logger.makeRecord(
          "test", logging.INFO, "file.py", 1, "step %d", (3,), None
      )
      record.created = 0.0
      record.msecs = 0.0
      logger.handlers[-1].handle(record)
    text = (self.path / "log.txt").read_text()
    self.assertTrue(
        re.fullmatch(r"1970-01-01T00:00:00\.000Z INFO step 3\n", text), text
    )


if __name__ == "__main__":
  absltest.main()
