"""Eight virtual CPU devices and fast compilation, before JAX starts."""

import gc
import os
import tempfile

from ctxseg_jax import commands

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of the tests is compilation. Without LLVM's optimisations it
# is half as long, with XLA's older code for fusions half of that, and the tiny
# networks of the tests run as fast. Commands that run as processes of their own
# compile as they do for users.
commands.add_xla_flag("--xla_cpu_use_fusion_emitters=false")
for flag in (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
):
  flags = os.environ.get("XLA_FLAGS", "")
  if flag.split("=")[0] not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), "ctxseg_jax_compilation_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# Tiny networks have no use for large pages, nor commands for a second start.
os.environ.setdefault("GLIBC_TUNABLES", "")
commands.choose_convolutions()


def pytest_configure(config):
  """Lets files run in the order of their collection.

  pytest-xdist would begin those of few tests last, which are the longest: one
  core would wait for them.
  """
  config.option.loadscopereorder = False


def pytest_collection_finish():
  """Spares the garbage collector what was imported, and most of its rounds.

  Tracing makes many objects: they were a fifteenth of the time.
  """
  gc.collect()
  gc.freeze()
  gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
  """Begins with what takes long: whole trainings, killed and resumed."""
  items.sort(key=lambda item: item.path.parent.name != "training")
