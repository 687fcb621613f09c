"""Pages of the documentation that have a generated part."""

import pathlib

from ctxseg_jax import errors

MARKERS = ("<!-- table -->", "<!-- end of table -->")


def read_table(path: pathlib.Path) -> str:
  """Returns what is between the markers of a file; "" if there is no file.

  Raises:
    UserError: The file does not have both markers.
  """
  return _split(path)[1].strip()


def write_table(path: pathlib.Path, text: str) -> None:
  """Replaces what is between the markers of a file.

  Raises:
    UserError: The file does not have both markers.
  """
  before, _, after = _split(path)
  path.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}")


def _split(path):
  whole = path.read_text() if path.exists() else "\n".join(MARKERS) + "\n"
  if any(whole.count(marker) != 1 for marker in MARKERS):
    raise errors.UserError(
        f"{path}: expected {MARKERS[0]!r} and {MARKERS[1]!r} once each; put"
        " them where the table belongs"
    )
  before, rest = whole.split(MARKERS[0])
  return before, *rest.split(MARKERS[1])
