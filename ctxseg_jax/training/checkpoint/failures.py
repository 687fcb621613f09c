"""Why something failed, in one line; and failing on purpose, for tests."""

import os
import re
import signal


def reason(error: BaseException) -> str:
  """Returns the cause of an error in one line."""
  while error.__cause__ is not None:
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  # TensorStore puts the number at the end of a long line of paths.
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]


def fault(point: str) -> None:
  """Dies here if the environment asks for it, as by `kill -9` or power loss."""
  if os.environ.get("CTXSEG_FAULT") == point:
    os.kill(os.getpid(), signal.SIGKILL)
