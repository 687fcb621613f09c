"""Saves the steps of a run in the background and restores the newest intact."""

from concurrent import futures
import contextlib
import logging as std_logging
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import flax
import jax
import orbax.checkpoint as ocp

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.training import processes
from ctxseg_jax.training.checkpoint import arrays as arrays_lib
from ctxseg_jax.training.checkpoint import folders


class Checkpoints:
  """The checkpoints of one run: saved in the background, verified on restore.

  With several processes all call every method but `steps`, in the same order.
  Process 0 alone touches manifests, renames and deletes.
  """

  def __init__(
      self, directory: str | os.PathLike[str], *, max_to_keep: int = 2
  ):
    """Opens the directory and clears what an interrupted save left there.

    Raises:
      UserError: The directory cannot be made or written.
    """
    self._directory = pathlib.Path(directory).absolute()
    self._max_to_keep = max_to_keep
    self._exits = contextlib.ExitStack()
    self._saving = None  # (step, future of its completion).
    self._last_step = None
    self._open()
    plain_path = arrays_lib.plain_path(self._directory)
    self._path = self._exits.enter_context(plain_path)
    # What it logs as an error is raised as well.
    logging.get_absl_logger().addFilter(_is_not_of_orbax)
    self._checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
    self._executor = futures.ThreadPoolExecutor(1, "ctxseg_checkpoint")

  @processes.by_process_0
  def _open(self) -> None:
    with files.naming(self._directory):
      self._directory.mkdir(parents=True, exist_ok=True)
      folders.clear_leftovers(self._directory)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind, *_) -> None:
    self.close(agree=kind is None)

  def save(self, step: int, state: Any) -> None:
    """Starts to save a step; returns when the arrays may be overwritten.

    Waits for the save before. A step that was just saved or restored is not
    written again.

    Raises:
      UserError: This save or the one before could not be written.
    """
    self.wait()
    if step == self._last_step:
      return
    folder = f"{step}{folders.SAVING}"
    try:
      processes.on_process_0((self._directory / folder).mkdir)
      self._checkpointer.save(
          self._path / folder / arrays_lib.FOLDER,
          args=ocp.args.PyTreeSave(state),
      )
    except Exception as e:  # Orbax names no base class for what it raises.
      self._fail(step, e)
    arrays = arrays_lib.describe(state)
    self._saving = (step, self._executor.submit(self._complete, step, arrays))
    self._last_step = step

  def poll(self) -> None:
    """Raises as `wait` does, if the save in progress has ended; never waits.

    With several processes, which have to agree, nothing is known before `wait`.
    """
    if jax.process_count() == 1 and self._saving and self._saving[1].done():
      self.wait()

  def wait(self) -> None:
    """Waits for the save in progress.

    Raises:
      UserError: It could not be written.
    """
    if self._saving is None:
      return
    (step, future), self._saving = self._saving, None
    try:
      # Process 0 alone knows about the manifest, and all about Orbax.
      processes.on_process_0(future.result)
      future.result()
    except Exception as e:  # See `save`.
      self._fail(step, e)
    logging.info("Saved step %d in %s.", step, self._directory.name)

  def close(self, agree: bool = True) -> None:
    """Finishes the save in progress and stops the threads.

    Raises as `wait` does, unless not all processes `agree` to close now: after
    an error, which one alone may have, none waits for another.
    """
    try:
      if agree:
        self.wait()
    finally:
      self._executor.shutdown()
      with contextlib.suppress(Exception):  # A failed save again.
        self._checkpointer.close()
      self._exits.close()

  def steps(self) -> list[int]:
    """Returns the steps on disk, oldest first."""
    return folders.steps(self._directory)

  def restore(self, target: Any) -> tuple[Any, int] | None:
    """Restores the newest intact step; renames newer ones to `*.damaged`.

    Args:
      target: The pytree to fill: arrays or `jax.ShapeDtypeStruct`s, whose
        shardings say where the restored arrays go. Leaves without sharding
        become NumPy arrays.

    Returns:
      The state and its step; None if no step was ever completed.

    Raises:
      UserError: There are checkpoints but none is intact, or they are of
        another model.
    """
    self.wait()
    step, damaged = _newest_intact(self._directory)
    if step is None:
      return None
    # Another model is an error before anything is renamed.
    state = arrays_lib.fill(self._directory / str(step), target)
    self._set_aside(damaged)
    self._last_step = step
    return state, step

  @processes.by_process_0
  def _set_aside(self, damaged: list[int]) -> None:
    for step in damaged:
      folders.set_aside(self._directory / str(step), folders.DAMAGED)

  def _complete(self, step: int, arrays: dict[str, str]) -> None:
    """Verifies and names a step, then deletes old ones; in the background."""
    self._checkpointer.wait_until_finished()
    if jax.process_index() == 0:
      folders.complete(self._directory, step, arrays)
      folders.prune(self._directory, step, self._max_to_keep)

  def _fail(self, step: int, error: Exception) -> None:
    # It reports Orbax's other errors when they are collected: any time later.
    std_logging.getLogger("asyncio").disabled = True
    if jax.process_index() == 0:
      # It may be what fills the disk.
      folder = self._directory / f"{step}{folders.SAVING}"
      shutil.rmtree(folder, ignore_errors=True)
    kept = self.steps()
    remains = f"step {kept[-1]} is intact" if kept else "there is none before"
    raise errors.UserError(
        f"{self._directory}: the checkpoint of step {step} could not be"
        f" written ({folders.reason(error)}); {remains}. Free space or mend"
        " the disk and run the same command again."
    ) from error


def save_best(directory: str | os.PathLike[str], step: int, state: Any) -> None:
  """Saves the best state so far, waits, and removes the one before.

  Raises:
    UserError: It could not be written; the one before is then intact.
  """
  with Checkpoints(directory, max_to_keep=1) as checkpoints:
    checkpoints.save(step, state)


def load(
    directory: str | os.PathLike[str], step: int | None = None
) -> tuple[dict[str, Any], int]:
  """Reads a checkpoint for evaluation or prediction; changes no file.

  Args:
    directory: `<workdir>/checkpoints` or `<workdir>/best`.
    step: The step to read; None reads the newest that is intact.

  Returns:
    The state as nested dicts of NumPy arrays, without empty containers, and the
    step.

  Raises:
    UserError: There is no such intact checkpoint.
  """
  directory = pathlib.Path(directory).absolute()
  found, _ = _newest_intact(directory, step)
  if found is None:
    problem = "none is there" if step is None else f"no step {step}"
    raise errors.UserError(
        f"{directory}: no checkpoint to read ({problem}, complete steps:"
        f" {folders.steps(directory) or 'none'}); expected one written by"
        " train.py: check --workdir and the step."
    )
  arrays = arrays_lib.read(directory / str(found), {})
  return flax.traverse_util.unflatten_dict(arrays, sep="/"), found


@processes.by_process_0
def _newest_intact(
    directory: pathlib.Path, only: int | None = None
) -> tuple[int | None, list[int]]:
  """Returns the newest intact step and the damaged ones after it.

  Raises:
    UserError: There are steps, or there is the `only` one, and none is intact.
  """
  damaged = {}
  for step in reversed(folders.steps(directory)):
    if only not in (None, step):
      continue
    problem = folders.find_damage(directory / str(step))
    if problem is None:
      for newer in damaged.values():
        logging.warning(
            "Damaged checkpoint: %s; using step %d instead.", newer, step
        )
      return step, list(damaged)
    damaged[step] = problem
  name = "*" if only is None else only
  aside = sorted(directory.glob(f"{name}{folders.DAMAGED}"))[-1:]
  problems = [*damaged.values()] or [f"{path} was set aside" for path in aside]
  if problems:
    raise errors.UserError(
        f"{directory}: no checkpoint is intact ({'; '.join(problems)}); put an"
        " undamaged copy there, or choose another --workdir"
    )
  return None, []


def _is_not_of_orbax(record: std_logging.LogRecord) -> bool:
  return f"{os.sep}orbax{os.sep}" not in record.pathname
