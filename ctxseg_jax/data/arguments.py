"""Command lines of this package, whose modules the commands import as well.

Flags are argparse's: absl's are global, so that those of one module would
become flags of every command.
"""

import argparse
from typing import NoReturn

from ctxseg_jax import errors


class Parser(argparse.ArgumentParser):
  """Tells bad flags like any other error of the user's."""

  def error(self, message: str) -> NoReturn:
    raise errors.UserError(f"{message}. --help lists the flags.")
