"""Checkpoints that are whole, verified and survive a kill at any moment.

Orbax writes a step into a temporary directory and renames it, so a step is
there or not; but it keeps no checksum of the arrays, and a flipped bit on disk
would be restored as a slightly different network. So every step gets a
`manifest.json` with the size and SHA-256 of each file, written last. A step
without a manifest is an interrupted save; a step that differs from its
manifest is damaged, and the one before it is used.

  checkpoints/
    400/             complete: orbax's files and manifest.json
    600/
    600.damaged/     failed its manifest when it was restored; kept
    800.incomplete/  committed without a manifest; goes with the next save
"""

from collections.abc import Mapping
from concurrent import futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
from typing import Any

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from ctxseg_jax import errors

MANIFEST = "manifest.json"
_FORMAT = 1
_ORBAX_TMP = ".orbax-checkpoint-tmp"
_NUM_LISTED = 3  # Names per kind in a message that must stay one line.


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
        _clear_leftovers(self._directory)
      except OSError as e:
        raise errors.UserError(
            f"{self._directory}: cannot keep checkpoints here "
            f"({_reason(e)}); choose another --workdir or mend its permissions."
        ) from e
    _barrier("ctxseg_checkpoints_open")
    # Orbax would delete old steps as soon as it committed a new one, before
    # that has a manifest; so it keeps all and `_prune` deletes.
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
    self._saving = (step, _describe(state))
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
        logging.info("Orbax on closing: %s", _reason(e))

  def steps(self) -> list[int]:
    """Returns the complete steps on disk, oldest first."""
    return _complete_steps(self._directory)

  def reached_preemption(self, step: int) -> bool:
    """Returns whether all processes agreed to save this step and stop."""
    return self._manager.reached_preemption(step)

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
    step, damaged = _newest_intact(self._directory)
    earlier = sorted(self._directory.glob("*.damaged"))
    if step is None and not damaged and not earlier:
      return None
    if step is None:
      problems = list(damaged.values()) or [f"{earlier[-1]} was set aside"]
      raise errors.UserError(
          f"{self._directory}: no checkpoint is intact ({'; '.join(problems)});"
          " put an undamaged copy there, or choose another --workdir to start "
          "from step 0.")
    # Another model is an error before anything is renamed.
    step_dir = self._directory / str(step)
    result = _restore(step_dir, target, _read_manifest(step_dir))
    if damaged:
      if self._primary:
        for number in damaged:
          _set_aside(self._directory / str(number), ".damaged")
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
    _fault("after_commit")
    _write_manifest(self._directory / str(step), arrays)
    _fault("before_prune")
    _prune(self._directory, step, self._max_to_keep)

  def _fail(self, step: int, error: Exception) -> None:
    self._failed = True
    self._saving = None
    self._completing = None
    if self._primary:
      # What was half written may be what fills the disk.
      for path in self._directory.glob(f"{step}{_ORBAX_TMP}*"):
        shutil.rmtree(path, ignore_errors=True)
      unfinished = self._directory / str(step)
      if not (unfinished / MANIFEST).exists():
        shutil.rmtree(unfinished, ignore_errors=True)
    kept = self.steps()
    remains = f"step {kept[-1]} is intact" if kept else "there is none before"
    raise errors.UserError(
        f"{self._directory}: the checkpoint of step {step} could not be "
        f"written ({_reason(error)}); {remains}. Free space or mend the disk "
        "and run the same command again."
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
      _set_aside(directory / str(step), ".incomplete")
    _barrier("ctxseg_best_replace")
    checkpoints._manager.reload()
    checkpoints.save(step, state, meta)
    checkpoints.wait()


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
  found, damaged = _newest_intact(directory, step)
  if found is None:
    problems = "; ".join(damaged.values())
    if not problems:
      problems = "none is there" if step is None else f"no step {step}"
      problems += f", complete steps: {_complete_steps(directory) or 'none'}"
    raise errors.UserError(
        f"{directory}: no checkpoint to read ({problems}); expected one written"
        " by train.py: check --workdir and the step.")
  step_dir = directory / str(found)
  manifest = _read_manifest(step_dir)
  if target is None:
    state, meta = _read(step_dir, {name: None for name in manifest["arrays"]})
    return _nest(state), meta, found
  top = {name.split("/")[0] for name in _describe(target)}
  arrays = {
      name: array
      for name, array in manifest["arrays"].items()
      if name.split("/")[0] in top
  }
  state, meta = _restore(step_dir, target, manifest | {"arrays": arrays})
  return state, meta, found


def _newest_intact(
    directory: pathlib.Path, only: int | None = None
) -> tuple[int | None, dict[int, str]]:
  """Returns the step to use and what is wrong with the newer ones.

  Process 0 verifies; the others hear of the result, with empty reasons.
  """
  step = None
  damaged = {}
  if jax.process_index() == 0:
    for number in reversed(_complete_steps(directory)):
      if only is not None and number != only:
        continue
      problem = _find_damage(directory / str(number))
      if problem is None:
        step = number
        break
      damaged[number] = problem
    if step is not None:
      for problem in damaged.values():
        logging.warning(
            "Damaged checkpoint: %s; using step %d instead.", problem, step)
  if jax.process_count() > 1:
    # A count and not the list: all processes must pass the same shape.
    found = np.array([-1 if step is None else step, len(damaged)])
    found, count = map(int, multihost_utils.broadcast_one_to_all(found))
    step = None if found < 0 else found
    if jax.process_index() != 0:
      damaged = {-1 - i: "see process 0" for i in range(count)}
  return step, damaged


def _complete_steps(directory: pathlib.Path) -> list[int]:
  return sorted(
      int(path.parent.name)
      for path in directory.glob(f"*/{MANIFEST}")
      if path.parent.name.isdecimal()
  )


def _find_damage(step_dir: pathlib.Path) -> str | None:
  """Returns what differs from the manifest, naming the file; else None."""
  try:
    manifest = _read_manifest(step_dir)
  except (OSError, ValueError, KeyError, TypeError) as e:
    return f"{step_dir / MANIFEST} is not readable ({_reason(e)})"
  for name, expected in manifest["files"].items():
    path = step_dir / name
    try:
      size = path.stat().st_size
      if size != expected["size"]:
        return f"{path} has {size} bytes, expected {expected['size']}"
      if _sha256(path) != expected["sha256"]:
        return f"{path} differs from its SHA-256 in {MANIFEST}"
    except FileNotFoundError:
      return f"{path} is missing"
    except OSError as e:
      return f"{path} cannot be read ({_reason(e)})"
  return None


def _write_manifest(step_dir: pathlib.Path, arrays: dict[str, str]) -> None:
  files = {}
  for path in sorted(step_dir.rglob("*")):
    if path.is_dir():
      continue
    _fsync(path)
    name = path.relative_to(step_dir).as_posix()
    files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
  manifest = {"format": _FORMAT, "arrays": arrays, "files": files}
  manifest["sha256"] = _checksum(manifest)
  tmp = step_dir / f"{MANIFEST}.tmp"
  with open(tmp, "w", encoding="utf-8") as f:
    json.dump(manifest, f, indent=1)
    f.flush()
    os.fsync(f.fileno())
  _fault("before_manifest")
  os.rename(tmp, step_dir / MANIFEST)
  _fsync(step_dir)
  _fsync(step_dir.parent)


def _read_manifest(step_dir: pathlib.Path) -> dict[str, Any]:
  manifest = json.loads((step_dir / MANIFEST).read_text("utf-8"))
  if manifest.pop("sha256") != _checksum(manifest):
    raise ValueError("its own checksum differs")
  if manifest["format"] != _FORMAT:
    raise ValueError(f"format {manifest['format']}, expected {_FORMAT}")
  return manifest


def _checksum(manifest: dict[str, Any]) -> str:
  return hashlib.sha256(
      json.dumps(manifest, sort_keys=True).encode("utf-8")).hexdigest()


def _sha256(path: pathlib.Path) -> str:
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _fsync(path: pathlib.Path) -> None:
  fd = os.open(path, os.O_RDONLY)
  try:
    os.fsync(fd)
  finally:
    os.close(fd)


def _prune(directory: pathlib.Path, step: int, max_to_keep: int) -> None:
  """Deletes old steps, now that `step` is complete."""
  others = [number for number in _complete_steps(directory) if number != step]
  surplus = others[:len(others) - max_to_keep + 1]
  for number in surplus:
    # Under its own name, a half deleted step would look damaged.
    _delete(_set_aside(directory / str(number), ".deleting"))
  for path in directory.glob("*.incomplete"):
    _delete(path)


def _clear_leftovers(directory: pathlib.Path) -> None:
  for path in sorted(directory.iterdir()):
    if not path.is_dir():
      continue
    if _ORBAX_TMP in path.name or path.suffix == ".deleting":
      logging.info("Removing %s, left by an interrupted run.", path)
      _delete(path)
    elif path.name.isdecimal() and not (path / MANIFEST).exists():
      aside = _set_aside(path, ".incomplete")
      logging.info("Moved an interrupted save aside: %s.", aside)


def _set_aside(path: pathlib.Path, suffix: str) -> pathlib.Path:
  """Renames `path`; what is damaged is kept, anything else replaced."""
  aside = path.with_name(path.name + suffix)
  count = 1
  while suffix == ".damaged" and aside.exists():
    aside = path.with_name(f"{path.name}-{count}{suffix}")
    count += 1
  if aside.exists():
    _delete(aside)
  os.rename(path, aside)
  return aside


def _delete(path: pathlib.Path) -> None:
  try:
    shutil.rmtree(path)
  except OSError as e:
    # Costs space only; not worth the run.
    logging.warning("Could not delete %s (%s).", path, _reason(e))


def _restore(
    step_dir: pathlib.Path, target: Any, manifest: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
  expected = _describe(target)
  if manifest["arrays"] != expected:
    raise errors.UserError(
        _mismatch_message(step_dir, manifest["arrays"], expected))
  leaves, treedef = jax.tree.flatten(target)
  shardings = {
      name: getattr(leaf, "sharding", None)
      for name, leaf in zip(expected, leaves, strict=True)
  }
  arrays, meta = _read(step_dir, shardings)
  return jax.tree.unflatten(treedef, [arrays[n] for n in expected]), meta


def _read(
    step_dir: pathlib.Path, shardings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the named arrays (and no other) and the meta.

  The structure is taken from the checkpoint and the arrays are returned by
  name, so that containers without arrays, of which optax has many, need not
  compare equal.
  """
  handler = ocp.PyTreeCheckpointHandler()
  path = epath.Path(step_dir) / "state"
  tree = handler.metadata(path)
  tree = getattr(tree, "tree", tree)

  def item(key_path, array):
    if _name(key_path) not in shardings:
      return ocp.PLACEHOLDER
    return jax.ShapeDtypeStruct(array.shape, array.dtype)

  def restore_args(key_path, array):
    sharding = shardings.get(_name(key_path))
    if sharding is None:
      return ocp.RestoreArgs(restore_type=np.ndarray, dtype=array.dtype)
    return ocp.ArrayRestoreArgs(
        sharding=sharding, global_shape=array.shape, dtype=array.dtype)

  restored = ocp.Checkpointer(handler).restore(
      path,
      args=ocp.args.PyTreeRestore(
          jax.tree_util.tree_map_with_path(item, tree),
          restore_args=jax.tree_util.tree_map_with_path(restore_args, tree),
      ),
  )
  meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(
      epath.Path(step_dir) / "meta")
  leaves = jax.tree_util.tree_leaves_with_path(restored)
  arrays = {_name(key_path): leaf for key_path, leaf in leaves}
  return {name: arrays[name] for name in shardings}, meta


def _name(key_path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(key_path, simple=True, separator="/")


def _describe(tree: Any) -> dict[str, str]:
  """Returns e.g. `{"params/stem/kernel": "float32[3,3,3,64]"}`, in order."""
  described = {}
  for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if not hasattr(leaf, "dtype"):
      leaf = np.asarray(leaf)
    shape = ",".join(map(str, leaf.shape))
    described[_name(key_path)] = f"{leaf.dtype}[{shape}]"
  return described


def _nest(arrays: Mapping[str, Any]) -> dict[str, Any]:
  nested = {}
  for name, array in arrays.items():
    *parents, last = name.split("/")
    node = nested
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = array
  return nested


def _mismatch_message(
    step_dir: pathlib.Path, found: dict[str, str], expected: dict[str, str]
) -> str:
  names = found.keys() | expected.keys()
  differing = {n for n in names if found.get(n) != expected.get(n)}
  # The optimizer state repeats every difference of the parameters.
  of_model = {n for n in differing if not n.startswith("opt_state/")}
  differing = of_model or differing
  missing = [n for n in expected if n in differing and n not in found]
  unexpected = [n for n in found if n in differing and n not in expected]
  reshaped = [
      f"{n} is {found[n]}, expected {expected[n]}"
      for n in expected
      if n in differing and n in found
  ]
  parts = [
      f"{len(items)} {kind} ({_shorten(items)})"
      for kind, items in (
          ("missing", missing),
          ("unexpected", unexpected),
          ("of another shape or type", reshaped),
      )
      if items
  ]
  return (
      f"{step_dir}: the checkpoint is of another model: {', '.join(parts)}; use"
      " the config it was written with, or another --workdir.")


def _shorten(items: list[str]) -> str:
  more = ["..."] if len(items) > _NUM_LISTED else []
  return ", ".join(items[:_NUM_LISTED] + more)


def _reason(error: BaseException) -> str:
  """Returns the cause of an error in one line."""
  while error.__cause__ is not None:
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  # TensorStore puts the number at the end of a long line of paths.
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]


def _barrier(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _fault(point: str) -> None:
  """Dies here if the environment asks for it, as by `kill -9` or power loss."""
  if os.environ.get("CTXSEG_FAULT") == point:
    os.kill(os.getpid(), signal.SIGKILL)
