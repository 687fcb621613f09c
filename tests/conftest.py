"""Eight virtual CPU devices for every test, before JAX starts."""

import os
import tempfile

from ctxseg_jax import commands

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = " ".join(
      (
          os.environ.get("XLA_FLAGS", ""),
          "--xla_force_host_platform_device_count=8",
      )
  ).strip()
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), "ctxseg_jax_compilation_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
commands.choose_convolutions()
