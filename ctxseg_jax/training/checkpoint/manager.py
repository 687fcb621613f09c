"""Saves the steps of a run in the background and restores the newest intact."""

from collections.abc import Mapping
from concurrent import futures
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp

from ctxseg_jax import errors
from ctxseg_jax.training.checkpoint import arrays as arrays_lib
from ctxseg_jax.training.checkpoint import failures
from ctxseg_jax.training.checkpoint import folders
from ctxseg_jax.training.checkpoint import manifest as manifest_lib
from ctxseg_jax.training.checkpoint import reading


class Checkpoints:
  """The checkpoints of one run: saved in the background, verified on restore.

  With several processes every method except `steps` is called by all of them
  in the same order. Process 0 alone touches manifests, renames and deletes.
  """

  def __init__(
      self, directory: str | os.PathLike[str], *, max_to_keep: int = 2
  ):
    """Opens the directory and clears what an interrupted run left there.

    Args:
      directory: Where the steps lie; made if absent. The caller sees to it
        that no other run uses it.
      max_to_keep: Number of complete steps to keep.

    Raises:
      UserError: If the directory cannot be made or written.
    """
    if max_to_keep < 1:
      raise ValueError(f"max_to_keep={max_to_keep}; expected at least 1.")
    self._directory = pathlib.Path(directory).absolute()
    self._max_to_keep = max_to_keep
    self._primary = jax.process_index() == 0
    if self._primary:
      try:
        self._directory.mkdir(parents=True, exist_ok=True)
        folders.clear_leftovers(self._directory)
      except OSError as e:
        raise errors.UserError(
            f"{self._directory}: cannot keep checkpoints here"
            f" ({failures.reason(e)}); choose another --workdir or mend its"
            " permissions."
        ) from e
    _barrier("ctxseg_checkpoints_open")
    # Orbax would delete old steps as soon as it committed a new one, before
    # that has a manifest; so it keeps all and `prune` deletes.
    self._manager = ocp.CheckpointManager(
        self._directory,
        options=ocp.CheckpointManagerOptions(max_to_keep=None),
    )
    self._executor = futures.ThreadPoolExecutor(1, "ctxseg_checkpoint")
    self._saving = None  # (step, arrays) that orbax is writing.
    self._completing = None  # (step, future) whose manifest is being written.
    self._completed = []  # Complete steps not yet reported.
    self._last_step = None
    self._failed = False

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Starts to save a step; returns when the arrays may be overwritten.

    Waits for the save before, if it is still going on. A step that was just
    saved or restored is not written again.

    Args:
      step: Number of optimizer updates done.
      state: A pytree of arrays.
      meta: What else is needed to go on, as JSON.

    Raises:
      UserError: If this save or the one before could not be written.
    """
    self._advance(block=True)
    if step == self._last_step:
      return
    self._saving = (step, arrays_lib.describe(state))
    try:
      saved = self._manager.save(
          step,
          args=ocp.args.Composite(
              state=ocp.args.StandardSave(state),
              meta=ocp.args.JsonSave(dict(meta)),
          ),
          force=True,
      )
    except Exception as e:  # Orbax names no base class for what it raises.
      self._fail(step, e)
    if not saved:
      self._fail(step, OSError("orbax declined to save"))
    self._last_step = step

  def poll(self) -> list[int]:
    """Returns the steps that became complete since the last call.

    Cheap: meant to be called at every training step. Processes other than 0
    report a step once orbax committed it.

    Raises:
      UserError: If a save failed.
    """
    self._advance(block=False)
    completed, self._completed = self._completed, []
    return completed

  def wait(self) -> list[int]:
    """Waits for the save in progress; returns as `poll` does.

    Raises:
      UserError: If a save failed.
    """
    self._advance(block=True)
    _barrier("ctxseg_checkpoints_wait")
    return self.poll()

  def close(self) -> None:
    """Finishes the save in progress and stops the threads.

    Raises:
      UserError: If a save failed and no call before has said so.
    """
    try:
      if not self._failed:
        self._advance(block=True)
    finally:
      self._executor.shutdown()
      try:
        self._manager.close()
      except Exception as e:
        # Orbax reports a failed save again, after we have.
        if not self._failed:
          raise
        logging.info("Orbax on closing: %s", failures.reason(e))

  def steps(self) -> list[int]:
    """Returns the complete steps on disk, oldest first."""
    return manifest_lib.complete_steps(self._directory)

  def restore(self, target: Any) -> tuple[Any, dict[str, Any], int] | None:
    """Restores the newest complete step that is undamaged.

    Damaged steps newer than it are renamed to `<step>.damaged`.

    Args:
      target: The pytree to fill: arrays or `jax.ShapeDtypeStruct`s, whose
        shardings say where the restored arrays go (whatever devices wrote
        them). Leaves without sharding become NumPy arrays.

    Returns:
      The state with the structure of `target`, the meta and the step; None if
      no step was ever completed.

    Raises:
      UserError: If there are checkpoints but none is intact, or if they are
        of another model.
    """
    self._advance(block=True)
    step, damaged = reading.newest_intact(self._directory)
    earlier = sorted(self._directory.glob("*.damaged"))
    if step is None and not damaged and not earlier:
      return None
    if step is None:
      problems = list(damaged.values()) or [f"{earlier[-1]} was set aside"]
      raise errors.UserError(
          f"{self._directory}: no checkpoint is intact ({'; '.join(problems)});"
          " put an undamaged copy there, or choose another --workdir to start "
          "from step 0."
      )
    # Another model is an error before anything is renamed.
    step_dir = self._directory / str(step)
    arrays = manifest_lib.read(step_dir)["arrays"]
    result = arrays_lib.restore(step_dir, target, arrays)
    if damaged:
      if self._primary:
        for number in damaged:
          folders.set_aside(self._directory / str(number), ".damaged")
      _barrier("ctxseg_checkpoints_quarantine")
      self._manager.reload()  # It keeps a list of the steps.
    self._last_step = step
    return (*result, step)

  def _advance(self, block: bool) -> None:
    if self._saving is not None:
      if not block and self._manager.is_saving_in_progress():
        return
      step, arrays = self._saving
      try:
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
      except Exception as e:  # See `save`.
        self._fail(step, e)
      self._saving = None
      if self._primary:
        future = self._executor.submit(self._complete, step, arrays)
        self._completing = (step, future)
      else:
        self._completed.append(step)
    if self._completing is not None:
      step, future = self._completing
      if not block and not future.done():
        return
      try:
        future.result()
      except OSError as e:
        self._fail(step, e)
      self._completing = None
      self._completed.append(step)

  def _complete(self, step: int, arrays: dict[str, str]) -> None:
    """Writes the manifest, then deletes old steps; off the main thread."""
    failures.fault("after_commit")
    manifest_lib.write(self._directory / str(step), arrays)
    failures.fault("before_prune")
    folders.prune(self._directory, step, self._max_to_keep)

  def _fail(self, step: int, error: Exception) -> None:
    self._failed = True
    self._saving = None
    self._completing = None
    if self._primary:
      # What was half written may be what fills the disk.
      for path in self._directory.glob(f"{step}{folders.ORBAX_TMP}*"):
        shutil.rmtree(path, ignore_errors=True)
      unfinished = self._directory / str(step)
      if not (unfinished / manifest_lib.NAME).exists():
        shutil.rmtree(unfinished, ignore_errors=True)
    kept = self.steps()
    remains = f"step {kept[-1]} is intact" if kept else "there is none before"
    raise errors.UserError(
        f"{self._directory}: the checkpoint of step {step} could not be"
        f" written ({failures.reason(error)}); {remains}. Free space or mend"
        " the disk and run the same command again."
    ) from error


def save_best(
    directory: str | os.PathLike[str], state: Any, meta: Mapping[str, Any]
) -> None:
  """Saves the best state so far and removes the one before, in this order.

  Blocks until the new one is complete.

  Args:
    directory: Where it lies, in the format of `Checkpoints`.
    state: A pytree of arrays.
    meta: Has at least `"step"`.

  Raises:
    UserError: If it could not be written; the one before is then intact.
  """
  step = int(meta["step"])
  directory = pathlib.Path(directory).absolute()
  with Checkpoints(directory, max_to_keep=1) as checkpoints:
    if jax.process_index() == 0 and (directory / str(step)).exists():
      # The same step again, of a run that was set back: write it afresh.
      folders.set_aside(directory / str(step), ".incomplete")
    _barrier("ctxseg_best_replace")
    checkpoints._manager.reload()
    checkpoints.save(step, state, meta)
    checkpoints.wait()


def _barrier(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
