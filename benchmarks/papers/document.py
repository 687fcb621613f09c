"""What docs/papers.md says of the papers, between its markers."""

from collections.abc import Callable
from collections.abc import Iterable
import pathlib
import re

from benchmarks.papers import row as row_lib

PAGE = pathlib.Path("docs/papers.md")

_ROWS = """\
| row | published | commands | parameters | MACs of one crop | ours |
| --- | --- | --- | --- | --- | --- |"""
_READINGS = """\
| of | what the text says or leaves open, and what is built | instead |
| --- | --- | --- |"""


def render(papers: Iterable[row_lib.Paper], cells: Callable[[str], str]) -> str:
  """Returns the text; `cells` has those of a config, as `sizes.Size.cells`."""
  parts = []
  for paper in papers:
    parts += [f"## {paper.name}", paper.citation]
    for table in paper.tables:
      parts += [f"### {table.name}: {table.title}", table.note]
      parts += [_lines(_ROWS, (_row(row, cells) for row in table.rows))]
    if paper.readings:
      parts += [
          "### Readings",
          _lines(_READINGS, map(_reading, paper.readings)),
      ]
  return "\n\n".join(part for part in parts if part)


def read_cells(text: str) -> dict[str, str]:
  """Returns what a text of `render` has as the cells of each config."""
  lines = re.findall(
      r"^\| .* `train\.py --config configs/([^` ]+)`.*"
      r" \| ([\d,]+ \| [\d.]+ G, \d+x\d+) \| .* \|$",
      text,
      re.M,
  )
  return dict(lines)


def _lines(header, rows):
  return "\n".join([header, *rows])


def _row(row, cells):
  commands = f"`train.py --config configs/{row.config}`"
  if row.evaluate:
    commands += f"; `eval.py {row.evaluate}`"
  texts = map(_cell, (row.label, row.published, commands))
  return f"| {' | '.join(texts)} | {cells(row.config)} | {_cell(row.ours)} |"


def _reading(reading):
  texts = (reading.system, reading.text, reading.option)
  return f"| {' | '.join(map(_cell, texts))} |"


def _cell(text):
  return " ".join(text.split()).replace("|", r"\|")
