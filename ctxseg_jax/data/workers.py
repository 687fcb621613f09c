"""Processes that compute the items of a sequence ahead of their use.

An item is a pure function of its index. So a process that is killed, as the
kernel does when memory is short, is replaced by one that goes on at the next
item. Items travel through memory without a name, which the system frees with
the last process that maps it, however that ends.
"""

import contextlib
import itertools
import mmap
import multiprocessing
from multiprocessing import reduction
from multiprocessing import resource_tracker
from multiprocessing import util
import os
import pickle
import signal
import sys
import traceback
from typing import Any

from absl import logging
import cv2
import numpy as np

from ctxseg_jax import errors

# Items that each process keeps ready, beside the one it works on.
_SLOTS = 2
# Processes that may die within so many items before it is an error.
_MAX_DEATHS, _PERIOD = 3, 1000


class Workers:
  """An endless iterator over items; close it when done."""

  def __init__(self, items: Any, start: int, count: int):
    """Starts the processes.

    Args:
      items: Picklable; `items[index]` is a dict of arrays, of the same names,
        shapes and dtypes for every index.
      start: Index of the first item.
      count: Number of processes; they take turns.
    """
    self._pickled = pickle.dumps(items)
    self._next = start
    self._deaths = []
    self._workers = [None] * count
    for index in range(start, start + count):
      self._workers[index % count] = _Worker(self._pickled, index, count)
    # Before the module multiprocessing waits for them at exit.
    self._finalize = util.Finalize(
        self,
        lambda workers: [worker.close() for worker in workers],
        (self._workers,),
        exitpriority=1,
    )

  def __iter__(self) -> "Workers":
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns the next item.

    Raises:
      UserError: Process after process died.
      Exception: What computing the item raised.
    """
    place = self._next % len(self._workers)
    try:
      while (item := self._workers[place].receive()) is None:
        self._replace(place)
      if isinstance(item, Exception):
        raise item
    except BaseException:
      self.close()  # Nothing follows an error, so nobody would.
      raise
    self._next += 1
    return item

  def close(self) -> None:
    """Ends the processes and frees their memory."""
    self._finalize()

  def _replace(self, place: int) -> None:
    cause = self._workers[place].close(wait=1.0)
    self._deaths = [k for k in self._deaths if k > self._next - _PERIOD]
    self._deaths.append(self._next)
    if len(self._deaths) > _MAX_DEATHS:
      raise errors.UserError(
          f"data.num_workers: {len(self._deaths)} input workers died (the last "
          f"of {cause}); expected them to live. The kernel kills when memory "
          "is short: lower num_workers or free memory, and run the command "
          "again."
      )
    logging.warning("An input worker died of %s; starting another.", cause)
    self._workers[place] = _Worker(
        self._pickled, self._next, len(self._workers)
    )


class _Worker:
  """One process, seen from the one that started it."""

  def __init__(self, pickled: bytes, first: int, step: int):
    context = multiprocessing.get_context("spawn")
    self._connection, theirs = context.Pipe()
    self._process = context.Process(
        target=_work, args=(theirs, pickled, first, step), daemon=True
    )
    self._views = []  # An item in each slot.
    self._num_received = 0
    # Signals go to the whole process group. What to do about one is up to this
    # process, which may still want items; a worker inherits that they wait.
    resource_tracker.ensure_running()  # It would end the waiting.
    old = signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
    )
    try:
      self._process.start()
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, old)
      theirs.close()  # So that the death of its owner is the end of the file.

  def receive(self) -> dict[str, np.ndarray] | Exception | None:
    """Returns an item or what computing it raised; None if the process died."""
    try:
      message = self._connection.recv()
      if isinstance(message, Exception):
        return message
      if not self._views:
        descriptor = reduction.recv_handle(self._connection)
        self._views = _map_slots(descriptor, message)
    except (EOFError, OSError):
      return None
    views = self._views[self._num_received % _SLOTS]
    # About 0.3 ms per MB.
    item = {name: np.array(view) for name, view in views.items()}
    self._num_received += 1
    with contextlib.suppress(OSError):  # Then the next call tells.
      self._connection.send_bytes(b"free")
    return item

  def close(self, wait: float = 0.0) -> str:
    """Ends the process, after some seconds; returns what it died of."""
    self._views = []
    self._connection.close()
    self._process.join(wait)
    self._process.kill()
    self._process.join()
    code = self._process.exitcode
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _map_slots(
    descriptor: int, layout: list[tuple[str, tuple[int, ...], str]]
) -> list[dict[str, np.ndarray]]:
  """Returns the arrays of each slot in the memory of a worker."""
  try:
    memory = mmap.mmap(descriptor, 0)
  finally:
    os.close(descriptor)
  slots, offset = [], 0
  for _ in range(_SLOTS):
    slots.append({})
    for name, shape, dtype in layout:
      view = np.ndarray(shape, dtype, memory, offset)
      slots[-1][name] = view
      offset += view.nbytes
  return slots


def _work(connection: Any, pickled: bytes, first: int, step: int) -> None:
  """Computes items until the process that wants them is gone."""
  cv2.setNumThreads(0)  # The workers are the parallelism.
  # Grain imports jax where it is installed. A worker that touched it by
  # accident would take memory of the accelerator.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["CUDA_VISIBLE_DEVICES"] = ""
  if "jax" in sys.modules:  # Too late for the environment alone.
    sys.modules["jax"].config.update("jax_platforms", "cpu")
  slots = None
  with contextlib.suppress(EOFError, ConnectionError):
    for n in itertools.count():
      try:
        if n == 0:
          items = pickle.loads(pickled)
        item = items[first + n * step]
      except Exception as error:  # Raised where the item is asked for.
        connection.send(_portable(error))
        return
      if slots is None:
        layout = [(k, v.shape, v.dtype.str) for k, v in item.items()]
        # Without a name, and not limited by the size of /dev/shm.
        memory = os.memfd_create("items")
        os.truncate(memory, _SLOTS * sum(v.nbytes for v in item.values()))
        slots = _map_slots(os.dup(memory), layout)
      if n >= _SLOTS:
        connection.recv_bytes()  # Until the slot is free.
      for name, view in slots[n % _SLOTS].items():
        view[...] = item[name]
      connection.send(layout)
      if n == 0:
        reduction.send_handle(connection, memory, os.getppid())


def _portable(error: Exception) -> Exception:
  """Returns an exception that can be sent, with its traceback as a note."""
  text = traceback.format_exc()
  try:
    error = pickle.loads(pickle.dumps(error))
  except Exception:  # Its constructor takes other arguments than it keeps.
    error = RuntimeError("an input worker raised what cannot be sent")
  error.add_note(text)
  return error
