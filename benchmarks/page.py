"""Pages of the documentation that have a generated part."""

import pathlib

from ctxseg_jax import errors

MARKERS = ("<!-- table -->", "<!-- end of table -->")


def write_table(path: pathlib.Path, text: str) -> None:
  """Replaces what stands between the markers of a file.

  Raises:
    UserError: The file does not have both markers.
  """
  whole = path.read_text() if path.exists() else "\n".join(MARKERS) + "\n"
  if any(whole.count(marker) != 1 for marker in MARKERS):
    raise errors.UserError(
        f"{path}: expected {MARKERS[0]!r} and {MARKERS[1]!r} once each; put"
        " them where the table belongs"
    )
  before, rest = whole.split(MARKERS[0])
  after = rest.split(MARKERS[1])[1]
  path.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}")
