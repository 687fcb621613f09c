"""Tables of plain text."""

from collections.abc import Sequence


def align(
    rows: Sequence[Sequence[str]], sides: str, *, total: bool = False
) -> list[str]:
  """Returns the lines of a table, with a rule below the first.

  Args:
    rows: Cells by row; the first row has the titles.
    sides: The side that each column is flush with, "<" or ">".
    total: Whether the last row is a total, with a rule above it.
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
      "  ".join(
          f"{cell:{side}{width}}"
          for cell, side, width in zip(row, sides, widths, strict=True)
      ).rstrip()
      for row in rows
  ]
  rule = "-" * len(lines[0])
  if total:
    lines.insert(-1, rule)
  return [lines[0], rule, *lines[1:]]
