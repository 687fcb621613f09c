"""Asks a run to stop after the current step: SIGTERM, SIGINT, preemption."""

import os
import signal

from absl import logging
import jax
from jax.experimental import multihost_utils


class StopRequest:
  """Remembers a signal until the loop asks; a second one acts at once.

  With several processes the signal may reach only one of them: then JAX's
  preemption service agrees on a step at which all stop. It listens to SIGTERM
  (a handler set after `jax.distributed.initialize` would hide that from it),
  so SIGINT is passed on as SIGTERM.
  """

  def __init__(self):
    self._signal = None
    self._old = {}

  def __enter__(self) -> "StopRequest":
    if jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._old[number] = signal.signal(number, self._handle)
    else:
      self._old[signal.SIGINT] = signal.signal(signal.SIGINT, self._pass_on)
    return self

  def __exit__(self, *exc):
    for number, handler in self._old.items():
      signal.signal(number, handler)
    self._old = {}

  @property
  def name(self) -> str:
    """Name of the signal that came."""
    return self._signal.name if self._signal else "preemption"

  def requested(self) -> bool:
    """Returns whether this process was signalled; for use inside a step."""
    return self._signal is not None

  def agreed(self, step: int) -> bool:
    """Returns whether all processes stop after `step`.

    To be called by every process at every step, in the same order.
    """
    if jax.process_count() == 1:
      return self.requested()
    return multihost_utils.reached_preemption_sync_point(step)

  def _handle(self, number, frame):
    del frame
    self._signal = signal.Signals(number)
    logging.info("%s: stopping after this step.", self._signal.name)
    signal.signal(number, self._old.get(number, signal.SIG_DFL))

  def _pass_on(self, number, frame):
    del frame
    signal.signal(number, self._old[number])
    os.kill(os.getpid(), signal.SIGTERM)
