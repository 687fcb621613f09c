"""Processes that compute the items of a sequence ahead of their use.

An item is a pure function of its index. So a process that is killed, as the
kernel does when memory is short, is replaced by one that goes on at the next
item. The arrays of an item travel as memory without a name, which the system
frees with the last process that maps it, however that ends.
"""

import contextlib
import itertools
import mmap
import multiprocessing
from multiprocessing import connection
from multiprocessing import reduction
from multiprocessing import resource_tracker
from multiprocessing import util
import os
import pickle
import signal
import sys
import traceback
from typing import Any
from typing import NamedTuple

from absl import logging
import cv2

from ctxseg_jax import errors

# Items that each process keeps ready, beside the one it works on.
_NUM_READY = 2
# Processes that may die within so many items before it is an error.
_MAX_DEATHS, _PERIOD = 3, 1000


class _Worker(NamedTuple):
  process: multiprocessing.Process
  pipe: connection.Connection


class Workers:
  """An endless iterator over items; close it when done."""

  def __init__(self, items: Any, start: int, count: int):
    """Starts the processes.

    Args:
      items: Picklable; `items[index]` is picklable too and has arrays in it.
      start: Index of the first item.
      count: Number of processes; they take turns.
    """
    self._pickled = pickle.dumps(items)
    self._next = start
    self._deaths = []
    self._workers = [None] * count
    for index in range(start, start + count):
      self._workers[index % count] = _start(self._pickled, index, count)
    # Before the module multiprocessing waits for them at exit.
    self._finalize = util.Finalize(
        self,
        lambda workers: [_end(worker) for worker in workers],
        (self._workers,),
        exitpriority=1,
    )

  def __iter__(self) -> "Workers":
    return self

  def __next__(self) -> Any:
    """Returns the next item.

    Raises:
      UserError: Process after process died.
      Exception: What computing the item raised.
    """
    place = self._next % len(self._workers)
    try:
      while (item := _receive(self._workers[place].pipe)) is None:
        self._replace(place)
      if isinstance(item, Exception):
        raise item
    except BaseException:
      self.close()  # Nothing follows an error, so nobody would.
      raise
    self._next += 1
    return item

  def close(self) -> None:
    """Ends the processes."""
    self._finalize()

  def _replace(self, place: int) -> None:
    cause = _end(self._workers[place], wait=1.0)
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
    self._workers[place] = _start(self._pickled, self._next, len(self._workers))


def _start(pickled: bytes, first: int, step: int) -> _Worker:
  context = multiprocessing.get_context("spawn")
  ours, theirs = context.Pipe()
  process = context.Process(
      target=_work, args=(theirs, pickled, first, step), daemon=True
  )
  # Signals go to the whole process group. What to do about one is up to this
  # process, which may still want items; a worker inherits that they wait.
  resource_tracker.ensure_running()  # It would end the waiting.
  old = signal.pthread_sigmask(
      signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
  )
  try:
    process.start()
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, old)
    theirs.close()  # So that the death of its owner is the end of the file.
  return _Worker(process, ours)


def _end(worker: _Worker, wait: float = 0.0) -> str:
  """Ends a process, after some seconds; returns what it died of."""
  worker.pipe.close()
  worker.process.join(wait)
  worker.process.kill()
  worker.process.join()
  code = worker.process.exitcode
  return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _work(
    pipe: connection.Connection, pickled: bytes, first: int, step: int
) -> None:
  """Computes items until the process that wants them is gone."""
  cv2.setNumThreads(0)  # The workers are the parallelism.
  # Grain imports jax where it is installed. A worker that touched it by
  # accident would take memory of the accelerator.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["CUDA_VISIBLE_DEVICES"] = ""
  if "jax" in sys.modules:  # Too late for the environment alone.
    sys.modules["jax"].config.update("jax_platforms", "cpu")
  with contextlib.suppress(EOFError, ConnectionError):
    for n in itertools.count():
      try:
        if n == 0:
          items = pickle.loads(pickled)
        item = items[first + n * step]
      except Exception as error:  # Raised where the item is asked for.
        pipe.send(_portable(error))
        return
      if n >= _NUM_READY:
        pipe.recv_bytes()  # Until one is taken.
      _send(pipe, item)


def _send(pipe: connection.Connection, item: Any) -> None:
  arrays = []
  header = pickle.dumps(item, protocol=5, buffer_callback=arrays.append)
  # Without a name, and not limited by the size of /dev/shm.
  with open(os.memfd_create("item"), "wb") as memory:
    sizes = [memory.write(array.raw()) for array in arrays]
    memory.flush()
    pipe.send((header, sizes))
    reduction.send_handle(pipe, memory.fileno(), os.getppid())


def _receive(pipe: connection.Connection) -> Any:
  """Returns an item or what computing it raised; None if the process died."""
  try:
    message = pipe.recv()
    if isinstance(message, Exception):
      return message
    with open(reduction.recv_handle(pipe), "rb") as file:
      memory = memoryview(mmap.mmap(file.fileno(), 0))
    pipe.send_bytes(b"taken")
  except (EOFError, OSError):
    return None
  header, sizes = message
  ends = itertools.accumulate(sizes)
  arrays = [memory[e - n : e] for e, n in zip(ends, sizes, strict=True)]
  return pickle.loads(header, buffers=arrays)


def _portable(error: Exception) -> Exception:
  """Returns an exception that can be sent, with its traceback as a note."""
  text = traceback.format_exc()
  try:
    error = pickle.loads(pickle.dumps(error))
  except Exception:  # Its constructor takes other arguments than it keeps.
    error = RuntimeError("an input worker raised what cannot be sent")
  error.add_note(text)
  return error
