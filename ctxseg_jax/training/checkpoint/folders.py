"""Renames and deletes step directories so that a kill never misleads."""

import os
import pathlib
import shutil

from absl import logging

from ctxseg_jax.training.checkpoint import failures
from ctxseg_jax.training.checkpoint import manifest

ORBAX_TMP = ".orbax-checkpoint-tmp"


def prune(directory: pathlib.Path, step: int, max_to_keep: int) -> None:
  """Deletes old steps, now that `step` is complete."""
  others = [
      number for number in manifest.complete_steps(directory) if number != step
  ]
  surplus = others[: len(others) - max_to_keep + 1]
  for number in surplus:
    # Under its own name, a half deleted step would look damaged.
    delete(set_aside(directory / str(number), ".deleting"))
  for path in directory.glob("*.incomplete"):
    delete(path)


def clear_leftovers(directory: pathlib.Path) -> None:
  for path in sorted(directory.iterdir()):
    if not path.is_dir():
      continue
    if ORBAX_TMP in path.name or path.suffix == ".deleting":
      logging.info("Removing %s, left by an interrupted run.", path)
      delete(path)
    elif path.name.isdecimal() and not (path / manifest.NAME).exists():
      aside = set_aside(path, ".incomplete")
      logging.info("Moved an interrupted save aside: %s.", aside)


def set_aside(path: pathlib.Path, suffix: str) -> pathlib.Path:
  """Renames `path`; what is damaged is kept, anything else replaced."""
  aside = path.with_name(path.name + suffix)
  count = 1
  while suffix == ".damaged" and aside.exists():
    aside = path.with_name(f"{path.name}-{count}{suffix}")
    count += 1
  if aside.exists():
    delete(aside)
  os.rename(path, aside)
  return aside


def delete(path: pathlib.Path) -> None:
  try:
    shutil.rmtree(path)
  except OSError as e:
    # Costs space only; not worth the run.
    logging.warning("Could not delete %s (%s).", path, failures.reason(e))
