"""Patterns that stand for parts of a network.

A pattern is the name of a part, such as `backbone`, or matches paths, such as
`backbone/stage1_*` or `*/bn`; all that is below what it matches belongs to it.
"""

from collections.abc import Collection
from collections.abc import Sequence
import fnmatch

from ctxseg_jax import errors


def matches(path: str, pattern: str) -> bool:
  """Returns whether a path is of what a pattern stands for."""
  return any(fnmatch.fnmatchcase(path, p) for p in (pattern, f"{pattern}/*"))


def matches_any(path: str, patterns: Collection[str]) -> bool:
  """Returns whether a path is of what one of the patterns stands for."""
  return any(matches(path, pattern) for pattern in patterns)


def refuse_unmatched(
    patterns: Collection[str], names: Sequence[str], where: str
) -> None:
  """Refuses patterns of the option `where` that match none of the names."""
  unmatched = [p for p in patterns if not any(matches(n, p) for n in names)]
  if unmatched:
    parts = sorted({name.partition("/")[0] for name in names})
    raise errors.UserError(
        f"config: {where}: no part {min(unmatched)!r} in the model; it has"
        f" {', '.join(parts)}, and patterns match paths such as '{names[-1]}'"
    )
