"""What one process does for all, so that several never decide differently."""

from collections.abc import Callable
import functools
import json
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from ctxseg_jax import errors


def on_process_0(act: Callable[[], Any]) -> Any:
  """Calls a function on process 0; every process returns or raises alike.

  All have to call this in the same order, since it waits for all. What `act`
  returns is what JSON can hold, and it waits for no other process.

  Raises:
    UserError: On the others, if process 0 raised anything at all; process 0
      raises the error itself.
  """
  if jax.process_count() == 1:
    return act()
  error = None
  outcome = b""
  if jax.process_index() == 0:
    try:
      outcome = json.dumps([0, act()]).encode()
    except BaseException as e:  # Of any kind: the others wait for an answer.
      error = e
      outcome = json.dumps([getattr(e, "exit_code", 1), None]).encode()
  # Every process has to pass the same shape, so the length goes first.
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(outcome))))
  data = np.frombuffer(outcome.ljust(size), np.uint8)
  data = multihost_utils.broadcast_one_to_all(data)
  code, result = json.loads(np.asarray(data).tobytes())
  if error is not None:
    raise error
  if code:
    stopped = errors.UserError("process 0 stopped; its output tells why")
    stopped.exit_code = code
    raise stopped
  return result


def by_process_0(method: Callable[..., Any]) -> Callable[..., Any]:
  """Decorates what is called by all and done `on_process_0`."""

  @functools.wraps(method)
  def on_all(*args, **kwargs):
    return on_process_0(functools.partial(method, *args, **kwargs))

  return on_all
