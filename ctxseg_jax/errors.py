"""The errors that are not bugs, each with the exit code a command ends with.

A command prints them as one line, `error: <message>`, on standard error. The
message names the file or key, what was found, what was expected and the
remedy.
"""


class UserError(Exception):
  """Something the user can mend: a config, a file, a data set (exit 2)."""

  exit_code = 2


class NonFiniteError(UserError):
  """The loss or a gradient is not finite (exit 3)."""

  exit_code = 3


class WorkdirLockedError(UserError):
  """Another run is using the work dir (exit 4)."""

  exit_code = 4


class Preempted(UserError):
  """Stopped by a signal after saving; the same command resumes (exit 75)."""

  exit_code = 75
