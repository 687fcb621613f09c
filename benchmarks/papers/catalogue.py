"""The papers: every module of this package that is none of its machinery."""

import importlib
import pathlib

from benchmarks import sizes
from benchmarks.papers.row import Paper
from ctxseg_jax import errors

_FOLDER = pathlib.Path(__file__).parent
_MACHINERY = ("__init__", "__main__", "catalogue", "document", "row", "scenes")


def load() -> list[Paper]:
  """Returns the papers, in the order of their modules' names.

  Raises:
    UserError: A module has no `PAPER`.
  """
  papers = []
  for path in sorted(_FOLDER.glob("*.py")):
    if path.stem in _MACHINERY:
      continue
    module = importlib.import_module(f"{__package__}.{path.stem}")
    if not isinstance(getattr(module, "PAPER", None), Paper):
      raise errors.UserError(f"{path.name}: expected a row.Paper named PAPER")
    papers.append(module.PAPER)
  return papers


def check(paper: Paper) -> None:
  """Refuses what would mislead a reader of a paper's tables.

  Raises:
    UserError: A table without rows, two of one name, or in a table two rows of
      one label or of one command; a row whose config does not exist.
  """
  _refuse_twice([table.name for table in paper.tables], paper.name)
  for table in paper.tables:
    where = f"{paper.name}, {table.name}"
    if not table.rows:
      raise errors.UserError(f"{where}: no rows")
    _refuse_twice([row.label for row in table.rows], where)
    # The same network with the same evaluation has one figure.
    commands = [f"{row.config} {row.evaluate}".strip() for row in table.rows]
    _refuse_twice(commands, where)
    for row in table.rows:
      try:
        sizes.config(row.config)
      except errors.UserError as e:
        raise errors.UserError(f"{where}, {row.label!r}: {e}") from e


def _refuse_twice(names, where):
  for name in names:
    if names.count(name) > 1:
      raise errors.UserError(f"{where}: {name!r} occurs twice")
