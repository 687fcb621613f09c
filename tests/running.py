"""Runs commands in the process of the test, which saves starting another."""

import contextlib
import io

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
