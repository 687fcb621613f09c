"""What every command does around its work: flags, error lines, exit codes."""

from collections.abc import Callable
from collections.abc import Sequence
import logging as std_logging
import os
import re
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging
import jaxlib
from ml_collections import config_flags

from ctxseg_jax import errors

# jaxlib's YNNPACK convolutions have slow weight gradients on CPUs (a whole
# ResNet-50 step is 1.8 times faster without them). The flag is experimental
# and jaxlib exits on an unknown one, so it is set for probed versions only.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
_CPU_FLAG_VERSIONS = ("0.10.2",)


def run(main: Callable[[Sequence[str]], Any]) -> None:
  """Runs a command's main, then exits with the code of what happened.

  A `UserError` is one line on standard error and its exit code; so is a flag
  or a config that cannot be read. Anything else is a bug and keeps its
  traceback.

  Args:
    main: Takes the arguments that are no flags.
  """
  choose_convolutions()
  log_own_lines()

  def guarded(argv):
    if len(argv) > 1:
      fail(f"unexpected argument {argv[1]!r}; flags start with --", 2)
    try:
      main(argv)
    except errors.Preempted as e:
      print(e, file=sys.stderr, flush=True)
      sys.exit(e.exit_code)
    except errors.UserError as e:
      fail(str(e), e.exit_code)
    except KeyboardInterrupt:
      fail("interrupted", 130)

  app.run(guarded, flags_parser=_parse_flags)


def log_own_lines() -> None:
  """Logs what this package says, and of libraries only their warnings."""
  package = os.path.dirname(__file__)

  def is_wanted(record):
    return record.levelno >= std_logging.WARNING or record.pathname.startswith(
        package
    )

  # The logger, for every handler; the handler, for other loggers' records.
  handler = logging.get_absl_handler()
  for target in (logging.get_absl_logger(), handler):
    target.addFilter(is_wanted)
  handler.setFormatter(
      std_logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S")
  )
  logging.set_verbosity(logging.INFO)


def choose_convolutions() -> None:
  """Sets the XLA flag for fast CPU convolutions where it is known to work."""
  given = os.environ.get("XLA_FLAGS", "")
  if jaxlib.__version__ in _CPU_FLAG_VERSIONS and "ynn_fusion" not in given:
    os.environ["XLA_FLAGS"] = f"{given} {_CPU_FLAG}".strip()


def fail(message: str, code: int) -> None:
  """Prints `error: message` on standard error and exits."""
  print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
  sys.exit(code)


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  try:
    arguments = flags.FLAGS(argv)
  except (KeyError, AttributeError) as e:
    fail(_explain_key(str(e), argv), 2)
  except Exception as e:  # A config file can raise anything.
    text = str(e)
    if "Traceback (" in text:
      # ml_collections quotes what `get_config` raised; its end says it all.
      flag = text.partition(": ")[0]
      text = f"{flag}: {text.strip().splitlines()[-1]}"
    fail(text or repr(e), 2)
  if "config" in flags.FLAGS and flags.FLAGS["config"].present:
    try:
      # A command may do without, and then it is None.
      getattr(flags.FLAGS.config, "to_dict", None)
    except OSError:  # ml_collections tells of a missing file on first use.
      name = config_flags.get_config_filename(flags.FLAGS["config"])
      fail(f"--config: there is no file {name}", 2)
  return arguments


def _explain_key(text: str, argv: Sequence[str]) -> str:
  """Says which override names a key that the config does not have.

  Args:
    text: What ml_collections says: the last part of the key, in quotes, and
      perhaps 'Did you mean "near" instead of "key"?'.
    argv: The arguments, to find the whole key in.
  """
  near = re.search(r'mean "(\w+)" instead', text)
  for argument in argv[1:]:
    flag = argument.partition("=")[0]
    for part in flag.split(".")[1:]:
      if re.search(rf"\b{re.escape(part)}\b", text) and (
          near is None or part != near[1]
      ):
        hint = f", did you mean {near[1]!r}?" if near else ""
        return f"{flag}: the config has no key {part!r}{hint}"
  return text
