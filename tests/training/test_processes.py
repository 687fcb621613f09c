"""Tests for ctxseg_jax.training.processes."""

import os
import pathlib
import subprocess
import sys
import textwrap

from absl.testing import absltest
import tiny

from ctxseg_jax import errors
from ctxseg_jax.training import processes

ROOT = pathlib.Path(__file__).parents[2]
CODE = textwrap.dedent("""
    import sys
    import jax
    from ctxseg_jax import errors
    from ctxseg_jax.training import processes

    number = int(sys.argv[2])
    jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, number)

    def refuse():
      raise errors.WorkdirLockedError("in use")

    print("=", processes.on_process_0(lambda: ["of", number]))
    for act in (lambda: 1 // 0, refuse, lambda: object()):
      try:
        processes.on_process_0(act)
      except Exception as e:
        print("=", type(e).__name__, getattr(e, "exit_code", None))
    print("=", processes.on_process_0(lambda: None))
""")


class ProcessesTest(absltest.TestCase):

  def test_one_process_returns_or_raises_what_the_function_does(self):
    self.assertEqual(processes.on_process_0(lambda: (1, {2})), (1, {2}))
    with self.assertRaises(ZeroDivisionError):
      processes.on_process_0(lambda: 1 // 0)

  def test_two_return_or_raise_alike_whatever_happens_on_the_first(self):
    port = str(tiny.free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, port, str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        )
        for number in range(2)
    ]
    # An error of any kind used to leave the second waiting for the first.
    outputs = [
        [
            line.removeprefix("= ")
            for line in process.communicate(timeout=60)[0].splitlines()
            if line.startswith("= ")
        ]
        for process in started
    ]
    code = errors.WorkdirLockedError.exit_code
    expected = [
        ("['of', 0]", "['of', 0]"),
        ("ZeroDivisionError None", "UserError 1"),
        (f"WorkdirLockedError {code}", f"UserError {code}"),
        ("TypeError None", "UserError 1"),
        ("None", "None"),
    ]
    self.assertEqual(list(zip(*outputs, strict=True)), expected)


if __name__ == "__main__":
  absltest.main()
