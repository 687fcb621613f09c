"""Training, from a config to a finished work dir, read top to bottom."""

import contextlib
import math
import os
import time

from absl import logging
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ctxseg_jax import errors
from ctxseg_jax import memory
from ctxseg_jax.data import pipeline
from ctxseg_jax.data import records
from ctxseg_jax.pretrained import loading
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import freezing
from ctxseg_jax.training import preemption
from ctxseg_jax.training import progress
from ctxseg_jax.training import reports as reports_lib
from ctxseg_jax.training import run as run_lib
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import weights
from ctxseg_jax.training import workdir as workdir_lib


def train_and_evaluate(
    run: run_lib.Run,
    workdir: str | os.PathLike[str],
    *,
    allow_config_change: bool = False,
) -> step_lib.TrainState:
  """Trains a run; the same call again resumes.

  Args:
    run: A parsed config.
    workdir: Folder of everything the run writes.
    allow_config_change: Resume although the config is another than before.

  Returns:
    The final state.

  Raises:
    UserError: The config, the data or the work dir are not usable.
    NonFiniteError: A loss or gradient was not finite; it was not saved.
    Preempted: A signal came; the state was saved first.
  """
  folder = workdir_lib.Workdir(workdir)  # Refuses URLs before data is prepared.
  mesh = step_lib.make_mesh()
  _check_batch(run, mesh)
  tx, schedule = run.optimizer.make(run.total_steps)
  train_step = run.train_step(tx, mesh)
  train_source, eval_source = (
      records.open_source(run.spec, split, run.data.data_dir)
      for split in (run.data.train_split, run.data.eval_split)
  )

  # All processes do all that follows; process 0 alone writes and logs to the
  # files of the work dir, apart from checkpoints.
  with (
      folder,
      preemption.StopRequest() as stop,
      checkpoint.Checkpoints(
          folder.checkpoints, max_to_keep=run.max_to_keep
      ) as checkpoints,
  ):
    folder.check_config(
        run.config,
        # A run that saved nothing has nothing that a new config would change.
        allow_change=allow_config_change or not checkpoints.steps(),
        ignore=run_lib.FREE_KEYS,
    )
    folder.start_log()
    init_key, step_key = _keys(run.seed, mesh)
    state = _restore_or_start(run, tx, init_key, mesh, folder, checkpoints)
    start = int(state.step)
    # Only now: a config that the run cannot go on with replaces none.
    folder.write_config(run.config)
    _log_start(run, state, train_source, eval_source)

    reports = reports_lib.Reports(
        run, run.predictor(mesh), eval_source, folder, checkpoints, stop, start
    )
    evaluated = reports.done(start)
    folder.metrics.start(start, evaluated)
    if start and reports.due(start) and not evaluated:
      # The run was stopped between this checkpoint and its evaluation.
      reports.evaluate(start, state)

    batches = pipeline.train_batches(
        train_source,
        run.host_augmentation(train_source.sizes()),
        batch_size=run.batch_size,
        seed=run.seed,
        step=start,
        num_workers=run.data.num_workers,
        shard=(jax.process_index(), jax.process_count()),
    )
    meter = progress.Meter(run.batch_size, run.total_steps)
    previous = None
    with (
        progress.Progress(run.total_steps, start) as display,
        contextlib.closing(batches),
    ):
      for step in range(start + 1, run.total_steps + 1):
        with meter.waiting_for_data(), _saving(state, previous, checkpoints):
          batch = next(batches)
        index = batch.pop("index")
        if previous is None:
          for label, i in zip(batch["label"], index, strict=True):
            run.spec.check_label(label, f"example {i}")
        began = time.perf_counter()
        state, scalars = train_step(state, _shard(batch, mesh), step_key)
        if previous is None:
          seconds = time.perf_counter() - began
          logging.info("Compiled the training step in %.1f s.", seconds)
        else:
          # One step late: the device is never idle while the host looks.
          _require_finite(*previous, checkpoints)
        previous = (step, scalars, index)
        meter.count_step()

        last = step == run.total_steps
        stopping = stop.agreed()
        if step % run.log_every == 0 or last:
          _require_finite(*previous, checkpoints)
          scalars = {k: float(v) for k, v in jax.device_get(scalars).items()}
          scalars["learning_rate"] = float(schedule(step - 1))
          scalars |= meter.read(step)
          folder.metrics.write(step, scalars)
          display.update(step, scalars)
        if step % run.checkpoint_every == 0 or reports.due(step) or stopping:
          _save(state, *previous, checkpoints)
        checkpoints.poll()
        if stopping and not last:
          checkpoints.wait()
          raise errors.Preempted(
              f"stopped by {stop.name} at step {step}, saved; run the same"
              " command again to go on"
          )
        if reports.due(step):
          with meter.paused():
            reports.evaluate(step, state)
    checkpoints.wait()
    reports.finish()
    return state


def _restore_or_start(run, tx, key, mesh, folder, checkpoints):
  """Returns the newest intact checkpoint on this run's devices, or a start."""
  logging.info("Devices: %s", jax.devices())
  state = step_lib.run_once(lambda key: run.init_state(tx, key), key)
  state = jax.device_put(state, NamedSharding(mesh, P()))
  restored = checkpoints.restore(state)
  if restored is not None:
    logging.info("Resuming at step %d.", restored[1])
    return restored[0]
  folder.check_fresh()
  if run.init_from is None:
    if run.optimizer.freeze:
      logging.warning(
          "optim.freeze: %s will stay at random values; name trained weights"
          " in init_from.",
          ", ".join(run.optimizer.freeze),
      )
    return state
  normalised = loading.Normalisation(run.data.mean, run.data.std)
  contents = weights.contents(run.init_from)
  return loading.start(run.init_from, run.model, state, normalised, contents)


@contextlib.contextmanager
def _saving(state, previous, checkpoints):
  """Saves the state if the input fails, which costs no step that was done."""
  try:
    yield
  except errors.UserError:
    # Not with others, which do not come to this.
    if previous is not None and jax.process_count() == 1:
      _save(state, *previous, checkpoints)
      checkpoints.wait()
    raise


def _check_batch(run, mesh):
  """Refuses batches that devices cannot share or memory cannot hold."""
  run.check_batch_size(mesh.size)
  height, width = run.augmentation.crop_size
  memory.require(
      # Images in float32 and labels, of which more than one copy is made.
      run.batch_size // jax.process_count() * height * width * 16,
      f"config: batch_size {run.batch_size} of data.crop_size"
      f" {height},{width}",
      "lower them",
  )


def _keys(seed, mesh):
  """Returns the keys of the parameters and, replicated, of the steps."""
  init_key, step_key = jax.random.split(jax.random.key(seed))
  # As numbers: JAX does not put keys on devices of other processes.
  data = jax.device_put(jax.random.key_data(step_key), NamedSharding(mesh, P()))
  return init_key, jax.random.wrap_key_data(data)


def _log_start(run, state, train_source, eval_source):
  _, kept = freezing.split(state.params, run.optimizer.freeze)
  count, num_kept = (
      sum(x.size for x in jax.tree.leaves(tree))
      for tree in (state.params, kept)
  )
  logging.info(
      "%s with %s, %s parameters%s, %d images to train on, %d to evaluate.",
      type(run.model.backbone).__name__,
      type(run.model.head).__name__,
      f"{count:,}",
      f" ({num_kept:,} frozen)" if num_kept else "",
      len(train_source),
      len(eval_source),
  )


def _shard(batch, mesh):
  """Makes this process's share of a batch a part of the global one."""
  sharding = NamedSharding(mesh, P(step_lib.AXIS))
  return {
      name: jax.make_array_from_process_local_data(sharding, x)
      for name, x in batch.items()
  }


def _save(state, step, scalars, index, checkpoints):
  """Starts to save a state, unless something in it is not finite.

  A loss can be finite although a running variance overflowed: batch norm then
  divides by infinity.
  """
  _require_finite(step, scalars, index, checkpoints)
  finite = jax.device_get(_finite(state))
  for path, is_finite in jax.tree_util.tree_leaves_with_path(finite):
    if not is_finite:
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      _stop_not_finite(f"{name} is not finite", step, index, checkpoints)
  checkpoints.save(step, state)


def _require_finite(step, scalars, index, checkpoints):
  for name in ("loss/total", "grad_norm"):
    value = float(scalars[name])
    if not math.isfinite(value):
      _stop_not_finite(f"{name} is {value}", step, index, checkpoints)


@jax.jit
def _finite(state):
  return jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), state)


def _stop_not_finite(what, step, index, checkpoints):
  checkpoints.wait()
  last_good = max(checkpoints.steps(), default="none")
  raise errors.NonFiniteError(
      f"{what} at step {step} (examples {', '.join(map(str, index))}); nothing"
      f" of it was saved, last good checkpoint: {last_good};"
      " lower config.optim.learning_rate or look at these examples"
  )
