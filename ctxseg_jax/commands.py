"""What every command does around its work: flags, error lines, exit codes."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import gc
import hashlib
from importlib import metadata
import logging as std_logging
import os
import platform
import re
import signal
import sys
import threading
import traceback
from typing import Any

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from ctxseg_jax import errors
from ctxseg_jax import schema

# jaxlib's YNNPACK convolutions have slow weight gradients on CPUs (a whole
# ResNet-50 step is 1.8 times faster without them). The flag is experimental.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
# jaxlib exits on an unknown flag, so they are set for these versions only.
_PROBED_JAXLIB = ("0.10.2",)

# Large pages; and buffers of up to 1 GiB are kept for the next step, 2 GiB of
# them, in one arena, as only the first can hold buffers of more than 64 MiB.
# Larger ones stay with the system: kept, they would double the memory of a
# training, in which steps are dispatched ahead.
_GLIBC_TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
    f":glibc.malloc.mmap_threshold={1 << 30}"
    f":glibc.malloc.trim_threshold={2 << 30}"
)

_CACHE_GB = 4  # Of compiled programs; the least used go first.

_SECONDS_TO_STOP = 2.0  # From an interruption to the end of the process.
_interrupted = False


class _ConfigParser(config_flags.ConfigFileFlagParser):
  """Loads a config; a missing file is an error now, not on first use.

  A `ValueError` of the file says what is wrong; of other errors it is told
  where they come from.
  """

  def parse(self, path):
    name = path.partition(":")[0]
    if not os.path.isfile(name):
      raise ValueError(f"there is no file {name}")
    try:
      return super().parse(path)
    except errors.UserError:
      raise
    except Exception as e:
      # ml_collections quotes these, traceback and all, in another of the kind.
      error = e.__context__ if isinstance(e, (TypeError, ValueError)) else e
      if isinstance(error, ValueError):
        raise ValueError(str(error)) from error
      lines = [
          frame.lineno
          for frame in traceback.extract_tb(error.__traceback__)
          if os.path.abspath(frame.filename) == os.path.abspath(name)
      ]
      place = f"line {lines[-1]}: " if lines else ""
      raise ValueError(f"{place}{type(error).__name__}: {error}") from error


def define_config() -> flags.FlagHolder:
  """Defines `--config`, whose values `--config.KEY=VALUE` override.

  The value is a `ConfigDict`; None without the flag. What is overridden is a
  `schema.Text` in it, converted when `experiment.parse` knows its type: so
  every option can be given, also those that the file does not name.
  """
  return flags.DEFINE(
      _ConfigParser("config", lock_config=False),
      "config",
      None,
      "File under configs/, with :variant. --config.KEY=VALUE overrides"
      " any option; `python -m ctxseg_jax.describe --options` lists them.",
  )


def define_views() -> tuple[flags.FlagHolder, ...]:
  """Defines what changes how predictions are made; see `evaluate.change`."""
  return (
      flags.DEFINE_enum(
          "mode", None, ["whole", "slide"], "Whole images or windows."
      ),
      flags.DEFINE_bool("flip", None, "Add the mirrored images."),
      flags.DEFINE_list("scales", None, "Scales to average over."),
      flags.DEFINE_enum(
          "merge",
          None,
          ["probabilities", "pytorch_encoding"],
          "What of the views is averaged; see docs/evaluation.md.",
      ),
      flags.DEFINE_string(
          "short_side", None, "Size of images at scale 1; see --long_side."
      ),
      flags.DEFINE_string(
          "long_side", None, "The same; images are as large as fits both."
      ),
      flags.DEFINE_list("crop_size", None, "H,W of the windows."),
      flags.DEFINE_list("stride", None, "H,W between windows."),
      flags.DEFINE_string(
          "memory_gb",
          None,
          "GB that predictions may take on a device; images that need more are"
          " predicted in tiles. Default: the config's, else 1 on CPUs and half"
          " of an accelerator's.",
      ),
      flags.DEFINE_string(
          "max_canvases", None, "Shapes that images of all sizes are padded to."
      ),
      flags.DEFINE_string(
          "tile_margin", None, "Pixels that the network sees around a tile."
      ),
  )


def run(
    main: Callable[[Sequence[str]], Any], *, takes_arguments: bool = False
) -> None:
  """Runs a command's main, then exits with the code of what happened.

  Arguments beside flags are refused unless the command `takes_arguments`.

  A `UserError` is one line on standard error and its exit code; so are a flag
  or a config that cannot be read, a file that cannot be read or written, too
  little memory (exit 2) and an interruption (exit 130). Anything else is a bug
  and keeps its traceback.
  """
  set_up_memory()
  # Tracing makes many objects that stay: to look through them after every 700
  # new ones is a tenth of a start.
  gc.set_threshold(10_000)
  signal.signal(signal.SIGINT, _interrupt)
  choose_convolutions()
  keep_compiled_programs()
  _log_own_lines()
  with _guarded():
    # Texts of other alphabets are legible, or escaped, under LANG=C too.
    for stream in (sys.stdout, sys.stderr):
      stream.reconfigure(errors="backslashreplace")

    def checked_main(argv):
      if len(argv) > 1 and not takes_arguments:
        fail(
            f"unexpected argument {argv[1]!r}; flags start with --, and"
            " patterns such as '*.jpg' need quotes",
            2,
        )
      main(argv)

    app.run(checked_main, flags_parser=_parse_flags)


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
  """Ends the process with one line and its exit code for what is no bug."""
  try:
    yield
  except KeyboardInterrupt:
    fail("interrupted", 130)
  except Exception as e:
    if _interrupted:  # This is what the interruption led to.
      fail("interrupted", 130)
    if isinstance(e, errors.Preempted):
      print(e, file=sys.stderr, flush=True)
      sys.exit(e.exit_code)
    if isinstance(e, errors.UserError):
      fail(str(e), e.exit_code)
    if isinstance(e, OSError) and e.strerror is not None:
      place = f"{e.filename}: " if e.filename is not None else ""
      fail(f"{place}{e.strerror}; mend that and run the command again", 2)
    reason = _out_of_memory(e)
    if reason:
      fail(
          f"out of memory ({reason}); free some, lower --memory_gb in"
          " predictions, or make batches or the network smaller",
          2,
      )
    raise


def _out_of_memory(error: Exception) -> str:
  """Returns the first line of what lacked memory, or nothing."""
  if isinstance(error, MemoryError):
    return str(error) or "the system gave none"
  # Not by its class, which only a slow import knows.
  _, found, reason = str(error).partition("RESOURCE_EXHAUSTED: ")
  is_jax = type(error).__name__ == "JaxRuntimeError"
  return reason.partition("\n")[0] if found and is_jax else ""


def _interrupt(number, frame):
  """Raises KeyboardInterrupt, and ends the process if that does not.

  Python prints and forgets an exception in a finaliser, and an import in C
  turns it into an ImportError.
  """
  del number, frame
  global _interrupted
  _interrupted = True
  sys.unraisablehook = lambda _: None

  def end():
    print("error: interrupted", file=sys.stderr, flush=True)
    os._exit(130)

  watch = threading.Timer(_SECONDS_TO_STOP, end)
  watch.daemon = True
  watch.start()
  raise KeyboardInterrupt


def _log_own_lines() -> None:
  """Logs what this package says, and of libraries only their warnings."""
  package = os.path.dirname(__file__)

  def is_wanted(record):
    own = record.pathname.startswith(package)
    return own or record.levelno >= std_logging.WARNING

  # The logger, for every handler; the handler, for other loggers' records.
  handler = logging.get_absl_handler()
  for target in (logging.get_absl_logger(), handler):
    target.addFilter(is_wanted)
  handler.setFormatter(
      std_logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S")
  )
  logging.set_verbosity(logging.INFO)


def set_up_memory() -> None:
  """Starts the process again unless glibc was told how to manage memory.

  On a CPU a step asks for all its buffers anew, and the system clears every
  page it gives: in pages of 4 kB that is a fifth of the time. glibc reads these
  settings only when a process starts; other systems and C libraries have no use
  for them.
  """
  if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
    return
  os.environ["GLIBC_TUNABLES"] = _GLIBC_TUNABLES
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def choose_convolutions() -> None:
  """Sets the XLA flag for fast CPU convolutions where it is known to work."""
  add_xla_flag(_CPU_FLAG)


def add_xla_flag(flag: str) -> None:
  """Sets an XLA flag, unless it is given, where jaxlib is known to have it."""
  given = os.environ.get("XLA_FLAGS", "")
  version = metadata.version("jaxlib")  # Without the time that importing takes.
  if version in _PROBED_JAXLIB and flag.partition("=")[0] not in given:
    os.environ["XLA_FLAGS"] = f"{given} {flag}".strip()


def keep_compiled_programs() -> None:
  """Has JAX keep compiled programs for later runs, in the user's cache folder.

  JAX_COMPILATION_CACHE_DIR is another folder, and
  JAX_ENABLE_COMPILATION_CACHE=false keeps none.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  # Programs are for one kind of processor; a home folder may serve several.
  folder = os.path.join(folder, "ctxseg_jax", _processor())
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError:
    return  # Nothing is lost but time.
  os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
  os.environ.setdefault(
      "JAX_COMPILATION_CACHE_MAX_SIZE", str(_CACHE_GB * 10**9)
  )


def _processor() -> str:
  """Returns a name of what this machine's processors can do."""
  try:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
      lines = {x for x in file if x.startswith(("flags", "Features"))}
  except OSError:
    lines = {platform.processor()}
  digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
  return f"{platform.machine()}-{digest[:8]}"


def fail(message: str, code: int) -> None:
  """Prints `error: message` on standard error and exits."""
  print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
  sys.exit(code)


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  argv, overrides = _split_overrides(argv)
  try:
    arguments = flags.FLAGS(argv)
  except Exception as e:  # A config file can raise anything.
    fail(str(e) or repr(e), 2)
  config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
  if overrides and config is None:
    fail(f"--config.{overrides[0][0]}: needs --config", 2)
  if config is not None:
    plain = config.to_dict()
    for key, value in overrides:
      plain = schema.override(plain, key, value)
    flags.FLAGS["config"].value = config_dict.ConfigDict(plain)
  return arguments


def _split_overrides(argv):
  """Returns the arguments without overrides of the config, and those.

  `--config.a=1`, `--config.a 1`, `--config.a` (True), `--noconfig.a` (False).
  """
  rest, overrides, remaining = [], [], list(argv)
  while remaining:
    argument = remaining.pop(0)
    if argument == "--":
      rest += [argument, *remaining]
      break
    found = re.fullmatch(r"--?(no)?config\.([^=]+)(=.*)?", argument, re.DOTALL)
    if not found:
      rest.append(argument)
    elif found[3]:
      overrides.append((found[2], found[3][1:]))
    elif found[1]:
      overrides.append((found[2], "False"))
    elif remaining and not remaining[0].startswith("-"):
      overrides.append((found[2], remaining.pop(0)))
    else:
      overrides.append((found[2], "True"))
  return rest, overrides
