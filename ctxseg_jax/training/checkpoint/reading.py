"""Finds and reads intact checkpoints."""

import os
import pathlib
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.training.checkpoint import arrays as arrays_lib
from ctxseg_jax.training.checkpoint import manifest


def load(
    directory: str | os.PathLike[str],
    target: Any = None,
    step: int | None = None,
) -> tuple[Any, dict[str, Any], int]:
  """Reads a checkpoint for evaluation or prediction; changes no file.

  Args:
    directory: A directory of steps: `<workdir>/checkpoints` or
      `<workdir>/best`.
    target: A pytree as for `Checkpoints.restore` that may leave out whole
      top-level entries, such as `{"params": ..., "model_state": ...}`; what is
      left out is not read. None reads everything into nested dicts of NumPy
      arrays.
    step: The step to read; None reads the newest that is intact.

  Returns:
    The state, the meta and the step.

  Raises:
    UserError: If there is no such intact checkpoint, or if it is of another
      model.
  """
  directory = pathlib.Path(directory).absolute()
  found, damaged = newest_intact(directory, step)
  if found is None:
    problems = "; ".join(damaged.values())
    if not problems:
      problems = "none is there" if step is None else f"no step {step}"
      complete = manifest.complete_steps(directory) or "none"
      problems += f", complete steps: {complete}"
    raise errors.UserError(
        f"{directory}: no checkpoint to read ({problems}); expected one written"
        " by train.py: check --workdir and the step."
    )
  step_dir = directory / str(found)
  written = manifest.read(step_dir)
  if target is None:
    state, meta = arrays_lib.read(
        step_dir, {name: None for name in written["arrays"]}
    )
    return arrays_lib.nest(state), meta, found
  top = {name.split("/")[0] for name in arrays_lib.describe(target)}
  wanted = {
      name: array
      for name, array in written["arrays"].items()
      if name.split("/")[0] in top
  }
  state, meta = arrays_lib.restore(step_dir, target, wanted)
  return state, meta, found


def newest_intact(
    directory: pathlib.Path, only: int | None = None
) -> tuple[int | None, dict[int, str]]:
  """Returns the step to use and what is wrong with the newer ones.

  Process 0 verifies; the others hear of the result, with empty reasons.
  """
  step = None
  damaged = {}
  if jax.process_index() == 0:
    for number in reversed(manifest.complete_steps(directory)):
      if only is not None and number != only:
        continue
      problem = manifest.find_damage(directory / str(number))
      if problem is None:
        step = number
        break
      damaged[number] = problem
    if step is not None:
      for problem in damaged.values():
        logging.warning(
            "Damaged checkpoint: %s; using step %d instead.", problem, step
        )
  if jax.process_count() > 1:
    # A count and not the list: all processes must pass the same shape.
    found = np.array([-1 if step is None else step, len(damaged)])
    found, count = map(int, multihost_utils.broadcast_one_to_all(found))
    step = None if found < 0 else found
    if jax.process_index() != 0:
      damaged = {-1 - i: "see process 0" for i in range(count)}
  return step, damaged
