"""Runs commands: in the process of the test, which is fast, or in their own."""

import contextlib
import io
import pathlib
import subprocess
import sys

from absl import flags

from ctxseg_jax import errors


def run(module, *arguments):
  """Runs a command module with its flags; returns exit code, stdout, stderr."""
  others = set(flags.FLAGS)
  out, err = io.StringIO(), io.StringIO()
  try:
    module.define_flags()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      try:
        rest = flags.FLAGS([module.__name__, *map(str, arguments)])
        module.main(rest)
        code = 0
      except (errors.UserError, flags.Error, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=err)
        code = getattr(error, "exit_code", 2)
  finally:
    for name in set(flags.FLAGS) - others:
      delattr(flags.FLAGS, name)
  return code, out.getvalue(), err.getvalue()


def run_alone(module, *arguments):
  """Runs a command as its own process, without tensorflow and JAX.

  Returns:
    The completed process, which has failed if it imported one of the two.
  """
  script = (
      "import runpy, sys\n"
      "try:\n"
      "  runpy.run_module(sys.argv.pop(1), run_name='__main__')\n"
      "finally:\n"
      "  assert not {'tensorflow', 'jax'} & set(sys.modules)\n"
  )
  return subprocess.run(
      [sys.executable, "-c", script, module.__name__, *arguments],
      cwd=pathlib.Path(__file__).parents[1],
      capture_output=True,
      text=True,
      timeout=120,
  )
