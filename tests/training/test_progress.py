"""Tests for ctxseg_jax.progress."""

import io

from absl import logging
from absl.testing import absltest
import rich.console

from ctxseg_jax.training import progress

FIGURES = dict(images_per_second=85.31, data_wait_share=0.03, eta_seconds=48.2)
SCALARS = {"loss/total": 0.43214, "loss/aux": 1.0, "learning_rate": 0.026123}


class MeterTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.now = 100.0
    self.meter = progress.Meter(8, total_steps=100, clock=lambda: self.now)

  def run_step(self, waiting, computing):
    with self.meter.waiting_for_data():
      self.now += waiting
    self.now += computing
    self.meter.count_step()

  def test_compiling_does_not_count(self):
    self.run_step(waiting=50.0, computing=500.0)
    for _ in range(4):
      self.run_step(waiting=0.5, computing=1.5)
    rates = self.meter.read(5)
    self.assertAlmostEqual(rates["images_per_second"], 4.0)
    self.assertAlmostEqual(rates["data_wait_share"], 0.25)
    self.assertAlmostEqual(rates["eta_seconds"], 95 * 2.0)

  def test_rates_are_of_the_time_since_the_last_reading(self):
    self.run_step(0.0, 1.0)
    self.run_step(0.0, 1.0)
    self.meter.read(2)
    self.run_step(3.0, 1.0)
    rates = self.meter.read(3)
    self.assertAlmostEqual(rates["images_per_second"], 2.0)
    self.assertAlmostEqual(rates["data_wait_share"], 0.75)
    # The estimate moves towards the new pace: 1 s, then 1 + 0.3 * (4 - 1) s.
    self.assertAlmostEqual(rates["eta_seconds"], 97 * 1.9)

  def test_pauses_do_not_count(self):
    self.run_step(0.0, 1.0)
    self.run_step(0.0, 2.0)
    with self.meter.paused():
      self.now += 1000.0
    self.assertAlmostEqual(self.meter.read(2)["images_per_second"], 4.0)

  def test_nothing_measured_is_no_figure(self):
    self.assertEqual(self.meter.read(0), {})
    self.run_step(0.0, 1.0)
    self.assertEqual(self.meter.read(1), {})


class ProgressTest(absltest.TestCase):

  def test_without_a_terminal_a_line_per_update(self):
    console = rich.console.Console(file=io.StringIO())
    with self.assertLogs(level="INFO") as logs:
      with progress.Progress(600, 0, console) as shown:
        shown.update(120, SCALARS | FIGURES)
        shown.update(130, {"loss/total": float("nan"), "eta_seconds": 184325})
    self.assertEqual(
        [record.getMessage() for record in logs.records],
        [
            "step 120/600  loss 0.4321  lr 0.0261  85.3 img/s  data wait 3%  "
            "ETA 0:00:48",
            "step 130/600  loss nan  ETA 2 days, 3:12:05",
        ],
    )
    self.assertEqual(console.file.getvalue(), "")

  def test_on_a_terminal_a_bar(self):
    console = rich.console.Console(
        file=io.StringIO(), force_terminal=True, width=120
    )
    shows = logging.get_absl_handler().filter
    with self.assertLogs(level="INFO") as logs:
      with progress.Progress(600, 100, console) as shown:
        shown.update(120, SCALARS | FIGURES)
        # The log file has the line, the terminal has not.
        self.assertIn("step 120/600", logs.output[-1])
        self.assertFalse(shows(logs.records[-1]))
    self.assertTrue(shows(logs.records[-1]))
    text = console.file.getvalue()
    for part in ("120/600", "0.4321", "0.0261", "85.3", "3%", "0:00:48"):
      self.assertIn(part, text)

  def test_says_once_that_it_is_input_bound(self):
    console = rich.console.Console(file=io.StringIO())
    with self.assertLogs(level="WARNING") as logs:
      with progress.Progress(600, 0, console) as shown:
        for step, share in ((1, 0.2), (2, 0.4), (3, 0.5)):
          shown.update(step, SCALARS | {"data_wait_share": share})
    self.assertLen(logs.output, 1)
    self.assertIn("40%", logs.output[0])
    self.assertIn("config.data.num_workers", logs.output[0])


if __name__ == "__main__":
  absltest.main()
