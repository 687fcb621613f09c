"""Comparisons with peers: only equal work, by turns, and told as it was."""

import sys

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from benchmarks import gpu
from benchmarks import memory
from benchmarks import networks
from benchmarks import pair
from benchmarks import peer
from benchmarks import sizes
from benchmarks import timing
from configs.camvid import encnet
from ctxseg_jax import errors


class TimingTest(absltest.TestCase):

  def test_sides_work_by_turns(self):
    calls = []

    def side(name, seconds):
      def run(steps):
        calls.append((name, steps))
        return seconds * steps

      return run

    sides = {"ours": side("ours", 0.25), "eager": side("eager", 0.5)}
    found = timing.alternate(sides, rounds=2, block_seconds=1.0)
    first = [("ours", 1), ("eager", 1)]
    blocks = [("ours", 1), ("ours", 4), ("eager", 1), ("eager", 2)]
    self.assertEqual(calls, [*first, *blocks, *blocks])
    self.assertEqual(found, {"ours": [0.25] * 2, "eager": [0.5] * 2})

  def test_the_opponent_is_the_fastest_mode(self):
    # The machine slows down; within a round `b` takes 1.5 times as long.
    found = timing.compare(
        {"ours": [1.0, 2.0, 4.0], "a": [2.0, 9.0, 2.0], "b": [4.0, 3.0, 6.0]}
    )
    self.assertEqual(found["best_peer"], "b")
    self.assertEqual(found["ratio"], 1.5)
    self.assertEqual(found["ratio_range"], [1.5, 4.0])


class EqualWorkTest(parameterized.TestCase):

  def test_other_work_is_refused(self):
    pair.require_equal("loss", 1.0001, 1.0, 1e-3)
    for theirs in (1.01, float("nan")):
      with self.assertRaisesRegex(errors.UserError, "net, eager: loss: 1.0 h"):
        pair.require_equal("net, eager: loss", 1.0, theirs, 1e-3)

  @parameterized.parameters(
      # As mmsegmentation and torchvision build them, auxiliary heads included.
      ("fcn_r50", "mmsegmentation", 49_500_000),
      ("fcn_r50", "torchvision", 35_322_218),
  )
  @pytest.mark.slow
  def test_sizes(self, name, source, expected):
    config = networks.config(name, source, networks.Shape((64, 64)))
    parameters = sizes.size(config).parameters
    self.assertAlmostEqual(parameters / expected, 1, delta=0.01)

  def test_what_is_no_peer_is_told(self):
    with self.assertRaisesRegex(errors.UserError, "--peer_python: cannot run"):
      peer.Peer("no/such/python")
    with peer.Peer("/bin/true") as process:
      with self.assertRaisesRegex(errors.UserError, "stopped at 'describe'"):
        process.ask("describe")


class GpuTest(absltest.TestCase):

  def test_no_time_is_told_of_each_step(self):
    rows = list(gpu.steps(sys.executable, minutes=0.0, dry=False))
    self.assertLen(rows, len(gpu.STEPS))
    self.assertIn("time was over", gpu.to_table(rows))

  def test_a_failure_is_its_last_word(self):
    code = "import sys; sys.exit('what went before\\nerror: no peer')"
    failure = gpu._run([sys.executable, "-c", code])
    self.assertEqual(failure, "code 1: error: no peer")
    failure = gpu._run([sys.executable, "-c", "while True: pass"], 0.1)
    self.assertEqual(failure, "the time was over before it ended")


class MemoryTest(absltest.TestCase):

  @pytest.mark.slow
  def test_remat_keeps_less_of_an_image(self):
    config = encnet.get_config("smoke").to_dict()
    none, block = (memory.kept_bytes(config, x) for x in ("none", "block"))
    self.assertLess(block, 0.5 * none)


if __name__ == "__main__":
  absltest.main()
