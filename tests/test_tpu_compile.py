"""Steps compile for TPU pods, with the same collectives on 4 and 256 chips."""

import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from benchmarks import tpu_compile

ROOT = pathlib.Path(__file__).parent.parent


class CountTest(absltest.TestCase):

  def test_counts_collectives_and_not_their_users(self):
    text = """
      %a = f32[2,8]{1,0} all-reduce(f32[2,8]{1,0} %x), channel_id=1
      %b = (f32[3]{0}, f32[]) all-reduce-start(%y, %z), channel_id=2
      %c = (f32[3]{0}, f32[]) all-reduce-done(%b)
      %d = f32[2,8]{1,0} fusion(%all-reduce.1), kind=kLoop
      %e = f32[16]{0} all-gather(f32[2]{0} %w), dimensions={0}
    """
    self.assertEqual(
        tpu_compile.count_collectives(text), {"all-reduce": 2, "all-gather": 1}
    )


@pytest.mark.slow
class TopologiesTest(parameterized.TestCase):

  @parameterized.parameters(
      "configs/quickstart.py", "configs/camvid/encnet.py:r50"
  )
  def test_compiles_with_equal_collectives(self, config):
    pytest.importorskip("libtpu", reason='needs pip install -e ".[tpu]"')
    # A process of its own: the TPU compiler must not meet this one's flags.
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("XLA", "JAX"))
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.tpu_compile",
            f"--config={config}",
        ],
        cwd=ROOT,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    small, large = (json.loads(line) for line in done.stdout.splitlines())
    self.assertEqual((small["chips"], large["chips"]), (4, 256))
    self.assertEqual(small["collectives"], large["collectives"])
    self.assertSameElements(small["collectives"], ["all-reduce"])
    # One per batch norm forward, at most one backward, and those for the
    # losses and the combined gradients.
    count = small["collectives"]["all-reduce"]
    self.assertBetween(
        count, small["batch_norms"], 2 * small["batch_norms"] + 4
    )
    # 16 GB of a v5e chip hold the step.
    for result in (small, large):
      self.assertLess(
          result["temporary_bytes"] + result["argument_bytes"], 16e9
      )


if __name__ == "__main__":
  absltest.main()
