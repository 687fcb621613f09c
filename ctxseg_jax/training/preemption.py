"""Asks a run to stop after the current step: SIGTERM, SIGINT, preemption."""

import functools
import signal

from absl import logging
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np


class StopRequest:
  """Remembers a signal until the loop asks; a second one acts at once.

  With several processes the signal may reach only one of them, and all have to
  stop after the same step. So every process adds its flag to a sum over all
  devices at every step and acts on the sum of the step before, which is there
  already. JAX's preemption service is not used: it names one step to stop at,
  and a run that resumed after that step, or whose checkpoint threads report an
  older one, never gets there.
  """

  def __init__(self):
    self._signal = None
    self._old = {}
    self._asked = None  # Sum of all flags as of the step before.

  def __enter__(self) -> "StopRequest":
    for number in (signal.SIGTERM, signal.SIGINT):
      # None: a handler that is not Python's.
      self._old[number] = signal.signal(number, self._handle) or signal.SIG_DFL
    return self

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)

  @property
  def name(self) -> str:
    return self._signal.name if self._signal else "a signal to another process"

  def requested(self) -> bool:
    """Returns whether to stop at once; for use inside a step.

    Always False with several processes: one alone must not leave a step.
    """
    return self._signal is not None and jax.process_count() == 1

  def agreed(self) -> bool:
    """Returns whether all stop after this step; all ask once a step."""
    if jax.process_count() == 1:
      return self.requested()
    sharding, any_flag = self._sum
    flags = np.full(jax.local_device_count(), self._signal is not None)
    flags = jax.make_array_from_process_local_data(sharding, flags)
    before, self._asked = self._asked, any_flag(flags)
    return before is not None and bool(before)

  @functools.cached_property
  def _sum(self):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("device",))
    any_flag = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))
    return NamedSharding(mesh, P("device")), any_flag

  def _handle(self, number, frame):
    del frame
    self._signal = signal.Signals(number)
    logging.info("%s: stopping after this step.", self._signal.name)
    signal.signal(number, self._old.get(number, signal.SIG_DFL))
