"""Eight virtual CPU devices for every test, before JAX starts.

Programs are small and many: compiling them takes the time, so the compiler
optimises little. Commands that tests start have the compiler of users.
"""

import os
import tempfile

from ctxseg_jax import commands

os.environ.setdefault("JAX_PLATFORMS", "cpu")
for flag, value in (
    ("--xla_force_host_platform_device_count", 8),
    ("--xla_backend_optimization_level", 0),
):
  given = os.environ.get("XLA_FLAGS", "")
  if flag not in given:
    os.environ["XLA_FLAGS"] = f"{given} {flag}={value}".strip()
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), "ctxseg_jax_compilation_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
commands.choose_convolutions()
