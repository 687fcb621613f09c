"""The papers' claims on context scenes, as docs/context_scenes.md has them."""

from collections.abc import Mapping
import pathlib

from benchmarks import context_scenes
from benchmarks import page
from benchmarks.papers.row import Row
from benchmarks.papers.row import Table
from ctxseg_jax import errors

_RESULTS = pathlib.Path("docs") / context_scenes.PAGE
_NOTE = (
    "No table of the paper: the claims on drawn images, with a small network"
    " and 600 steps, so that differences are to be compared and not figures."
    " [docs/context_scenes.md](context_scenes.md) has every seed and what"
    " follows. Published figures, where there are any, are of PASCAL-Context."
)


def table(claims: Mapping[str, tuple[str, str]]) -> Table:
  """Returns the rows of a paper's claims.

  Args:
    claims: Label and published figure of each variant of
      `configs/context_scenes.py`.

  Raises:
    UserError: The page has no results of a variant.
  """
  results = context_scenes.read_table(page.read_table(_RESULTS))
  results = {result.name: result for result in results}
  rows = []
  for variant, (label, published) in claims.items():
    if variant not in results:
      raise errors.UserError(
          f"{_RESULTS}: no row of {variant!r}; run: python -m"
          f" benchmarks.context_scenes --variants {variant}"
      )
    result = results[variant]
    seeds = "1 seed"
    if result.spread is not None:
      seeds = f"{len(result.miou)} seeds, spread {result.spread:.1f}"
    ours = f"{result.mean:.1f} mIoU, {seeds}"
    config = f"context_scenes.py:{variant}"
    rows.append(Row(label, published, config, ours=ours))
  return Table("Context scenes", "The claims", tuple(rows), _NOTE)
