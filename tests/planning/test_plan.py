"""What a step costs on chips, by hand, and on the devices at hand."""

import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import pytest

from configs import quickstart
from ctxseg_jax import describe
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import plan
from ctxseg_jax.planning import chips
from ctxseg_jax.planning import estimate
from ctxseg_jax.planning import here
from ctxseg_jax.planning import program as program_lib
from ctxseg_jax.planning import report

ROOT = pathlib.Path(__file__).parents[2]


def make_program(**changes):
  figures = dict(
      images=2,
      flops=1.97e12,  # 10 ms of a v5e.
      num_bytes=4.095e9,  # 5 ms.
      fast_bytes=1e9,
      arguments=10**9,
      temporaries=3 * 10**9,
      collectives={"all-reduce": [(3, 100), (1, 4 * 10**8)]},
      batch_norms=3,
      xla_flops=2e12,
      xla_bytes=5e9,
      instructions=[],
      compile_seconds=7.0,
  )
  return program_lib.Program(**(figures | changes))


def make_run(**changes):
  config = quickstart.get_config().to_dict()
  return experiment.parse(config | changes)


def make_report(program, topology="v5e:16x16"):
  where = chips.parse_slice(topology)
  return report.make(make_run(), program, where, compiled_for=topology)


class SliceTest(parameterized.TestCase):

  def test_an_all_reduce_on_a_ring_and_on_a_line(self):
    # Both ways along both axes, 50 GB/s each; 8 hops along each and back.
    ring = chips.parse_slice("v5e:16x16").all_reduce_seconds(1e9)
    self.assertAlmostEqual(ring, 2 * 255 / 256 / 200 + 32e-6)
    # Rings of TPU v5e close at 16.
    line = chips.parse_slice("v5e:2x4").all_reduce_seconds(1e9)
    self.assertAlmostEqual(line, 2 * 7 / 8 / 100 + 8e-6)
    # One axis is none.
    flat = chips.parse_slice("v5p:2x2x1").all_reduce_seconds(0)
    self.assertAlmostEqual(flat, 4e-6)

  @parameterized.parameters(
      ("v5e", "such as v5e:16x16"),
      ("v9:2x2", "v4, v5e, v5p, v6e"),
      ("v5e:4x4x4", "2 axes, got 3; write it as v5e:4x4"),
      ("v5e:16x32", "512 chips, v5e has at most 256"),
  )
  def test_what_is_no_slice_is_one_line(self, text, message):
    with self.assertRaisesRegex(errors.UserError, message):
      chips.parse_slice(text)

  def test_a_missing_compiler_is_one_line(self):
    with mock.patch.object(
        program_lib.importlib.util, "find_spec", return_value=None
    ):
      with self.assertRaisesRegex(errors.UserError, r"pip install .*\[tpu\]"):
        program_lib.tpu_devices(chips.parse_slice("v5e:2x2"))


class ReportTest(absltest.TestCase):

  def test_times_are_those_of_peak_bandwidth_and_links(self):
    made = make_report(make_program())
    seconds = made["seconds"]
    self.assertAlmostEqual(seconds["operations"], 10e-3)
    self.assertAlmostEqual(seconds["memory"], 5e-3)
    gradients = 2 * 255 / 256 * 4e8 / 200e9
    self.assertAlmostEqual(seconds["collectives"], gradients + 4 * 32e-6, 8)
    self.assertAlmostEqual(seconds["step"], 10e-3 + seconds["collectives"])
    self.assertAlmostEqual(made["efficiency"], 10e-3 / seconds["step"])
    self.assertTrue(made["fits"])
    self.assertIn("Limit: operations.", report.text(made, largest=0))

  def test_what_does_not_fit_says_what_to_change(self):
    made = make_report(make_program(temporaries=20 * 10**9))
    self.assertFalse(made["fits"])
    text = report.text(made, largest=0)
    self.assertIn("--config.loss.ce.num_chunks=64", text)
    self.assertIn("more chips", text)
    deep = make_run(
        model=quickstart.get_config().model.to_dict()
        | dict(backbone=dict(name="resnet", depth=50))
    )
    self.assertIn(
        "--config.model.backbone.remat=conv",
        "".join(estimate.remedies(deep, 1)),
    )


class HereTest(absltest.TestCase):

  def test_the_devices_at_hand_and_a_real_step(self):
    config = quickstart.get_config("fcn").to_dict()
    config["model"]["backbone"]["channels"] = 8
    run = experiment.parse(config | dict(batch_size=2))
    with (
        mock.patch.object(jax, "devices", return_value=jax.devices()[:1]),
        mock.patch.multiple(here, _SIDE=64, _ELEMENTS=1024),
    ):
      made = plan.report_here(run, 1)
    self.assertLen(made["measured"], 1)
    self.assertIn("Measured:", report.text(made, largest=2))
    # Backward twice the products of forward, but for the gradient of images.
    model = experiment.build_model(run.config["model"], run.spec.num_classes)
    one = describe.describe(model, run.augmentation.crop_size)
    forward = 2 * 2 * one["conv_macs"]
    self.assertBetween(made["flops"], 2 * forward, 3 * forward)

  def test_a_batch_that_does_not_divide_is_one_line(self):
    with self.assertRaisesRegex(errors.UserError, "use a multiple of 8"):
      plan.report_here(make_run(batch_size=3), 0)


@pytest.mark.slow
class TopologiesTest(absltest.TestCase):

  def test_chips_of_small_and_large_slices_do_the_same(self):
    pytest.importorskip("libtpu", reason='needs pip install -e ".[tpu]"')
    # A process of its own: the TPU compiler must not meet this one's flags.
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("XLA", "JAX"))
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ctxseg_jax.plan", "--json"),
            *("--compile_each", "--batch_per_chip=2"),
            *("--config=configs/quickstart.py", "--topology=v5e:2x2,v5e:16x16"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    small, large = json.loads(done.stdout)
    self.assertEqual((small["chips"], large["chips"]), (4, 256))
    self.assertEqual(small["collectives"], large["collectives"])
    self.assertSameElements(small["collectives"], ["all-reduce"])
    # One per batch norm forward, at most one backward, and those for the
    # losses and the combined gradients.
    count = small["collectives"]["all-reduce"]["runs"]
    self.assertBetween(
        count, small["batch_norms"], 2 * small["batch_norms"] + 4
    )
    for figure in ("flops", "bytes", "memory"):
      self.assertAlmostEqual(
          large[figure] / small[figure], 1, delta=0.02, msg=figure
      )
    self.assertTrue(small["fits"] and large["fits"])


if __name__ == "__main__":
  absltest.main()
