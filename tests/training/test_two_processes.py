"""Two processes train as one does, and stop together."""

import contextlib
import pathlib
import signal
import tempfile

from absl.testing import absltest
import numpy as np
import pytest
import tiny


class TwoProcessesTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    directory = self.enterContext(tempfile.TemporaryDirectory())
    # Brackets: Orbax takes them for a glob.
    self.workdir = pathlib.Path(directory) / "run[2]"

  @contextlib.contextmanager
  def start(self, *flags):
    """Starts both, each with two devices."""
    port = tiny.free_port()
    with contextlib.ExitStack() as stack:
      yield [
          stack.enter_context(
              tiny.start_training(
                  self.workdir,
                  "--distributed",
                  f"--coordinator_address=localhost:{port}",
                  "--num_processes=2",
                  f"--process_id={number}",
                  *flags,
                  devices=2,
              )
          )
          for number in range(2)
      ]

  def finish(self, *flags):
    with self.start(*flags) as processes:
      results = [process.result() for process in processes]
    for result in results:
      self.assertEqual(result.code, 0, result.stderr)
    return results

  def assert_arrays_of_one_process(self):
    expected = tiny.arrays(tiny.finished_run(devices=4))
    found = tiny.arrays(self.workdir)
    self.assertSameElements(found, expected)
    for name, array in expected.items():
      np.testing.assert_allclose(
          found[name], array, rtol=1e-6, atol=1e-6, err_msg=name
      )

  def test_two_processes_of_two_devices_equal_one_of_four(self):
    results = self.finish()
    reference = tiny.finished_run(devices=4)
    self.assert_arrays_of_one_process()
    reports = tiny.evaluations(self.workdir)
    self.assertSameElements(reports, ["6", "12"])
    for name, report in tiny.evaluations(reference).items():
      self.assertEqual(
          reports[name]["confusion_matrix"], report["confusion_matrix"]
      )
      self.assertEqual(reports[name]["num_images"], 14)
    # Process 0 alone keeps the books.
    steps = [step for step, _ in tiny.losses(self.workdir)]
    self.assertEqual(steps, list(range(1, tiny.STEPS + 1)))
    log = (self.workdir / "log.txt").read_text().splitlines()
    self.assertLen([x for x in log if "step 12/12" in x], 1)
    self.assertLen(list((self.workdir / "tensorboard").iterdir()), 1)
    self.assertIn("mIoU", results[0].stdout)
    self.assertNotIn("mIoU", results[1].stdout)

  def test_what_stops_process_0_stops_the_other(self):
    tiny.copy_finished_run(self.workdir)
    with self.start("--config.seed=3") as processes:
      results = [process.result(60) for process in processes]
    for result in results:
      self.assertEqual(result.code, 2, result.stderr)
      self.assertNotIn("Traceback", result.stderr)
      self.assertLen(result.errors, 1)
    self.assertIn("seed 0 -> 3", results[0].errors[0])
    self.assertIn("process 0", results[1].errors[0])

  @pytest.mark.slow
  def test_a_signal_to_either_stops_both_after_saving(self):
    # The second run resumes, and is told to stop before its first step.
    for number, target, text in (
        (signal.SIGTERM, 1, " step 2/"),
        (signal.SIGINT, 0, "Resuming at"),
    ):
      with self.start() as processes:
        processes[target].wait_for_log(text)
        processes[target].send(number)
        results = [process.result() for process in processes]
      step = tiny.losses(self.workdir)[-1][0]
      for result in results:
        self.assertEqual(result.code, 75, result.stderr)
        self.assertNotIn("Traceback", result.stderr)
        last = result.stderr.splitlines()[-1]
        self.assertIn(f" at step {step}, saved", last)
      last = results[target].stderr.splitlines()[-1]
      self.assertIn(signal.Signals(number).name, last)
      self.assertEqual(tiny.arrays(self.workdir, step)["step"], step)
    self.finish()
    self.assert_arrays_of_one_process()


if __name__ == "__main__":
  absltest.main()
