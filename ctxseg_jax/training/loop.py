"""Training, from a config to a finished work dir, read top to bottom."""

import contextlib
import math
import time

from absl import logging
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import ml_collections

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import pipeline
from ctxseg_jax.pretrained import initial
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import optim
from ctxseg_jax.training import preemption
from ctxseg_jax.training import progress
from ctxseg_jax.training import reports as reports_lib
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import workdir as workdir_lib


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    allow_config_change: bool = False,
) -> step_lib.TrainState:
  """Trains as the config says; the same call again resumes.

  Args:
    config: One experiment; see `configs/`.
    workdir: Folder of everything the run writes.
    allow_config_change: Resume although the config differs from the one the
      work dir was started with.

  Returns:
    The final state.

  Raises:
    UserError: The config, the data or the work dir are not usable.
    NonFiniteError: The loss or the gradient was not finite; nothing of that
      step was saved.
    Preempted: A signal came; the state was saved first.
  """
  plain = experiment.resolve(config.to_dict())
  experiment.check(plain)
  is_pretrained = initial.check(plain)
  spec = experiment.dataset(plain)
  mesh = experiment.make_mesh()
  if config.batch_size % mesh.size:
    raise errors.UserError(
        f"config: batch_size: {config.batch_size} does not divide over"
        f" {mesh.size} devices; use a multiple of {mesh.size}"
    )
  model = experiment.build_model(plain, spec)
  tx, schedule = optim.make(
      config.optim.to_dict(), total_steps=config.total_steps
  )
  augmentation = experiment.augmentation(plain, spec)
  inference_settings = experiment.inference_settings(plain)
  train_step = step_lib.make_train_step(
      model,
      tx,
      mesh,
      config.loss.to_dict(),
      mean=config.data.mean,
      std=config.data.std,
      ignore_label=spec.ignore_label,
      switches=plain.get("switches"),
  )
  train_source = pipeline.open_source(
      spec, config.data.train_split, config.data.data_dir
  )
  eval_source = pipeline.open_source(
      spec, config.data.eval_split, config.data.data_dir
  )

  with (
      workdir_lib.Workdir(workdir) as folder,
      preemption.StopRequest() as stop,
      checkpoint.Checkpoints(
          folder.checkpoints, max_to_keep=config.get("max_to_keep", 2)
      ) as checkpoints,
  ):
    folder.check_config(
        plain,
        # A run that saved nothing has nothing that a new config would change.
        allow_change=allow_config_change or not checkpoints.steps(),
        ignore=experiment.FREE_KEYS,
    )
    # All processes do all that follows; process 0 alone writes and logs to
    # the files of the work dir, apart from checkpoints.
    folder.start_log()
    logging.info("Devices: %s", jax.devices())

    # State: fresh, or the newest intact checkpoint on this run's devices.
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state = step_lib.init_state(model, tx, init_key, augmentation.crop_size)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    replicated = NamedSharding(mesh, P())
    state = jax.device_put(state, replicated)
    # As numbers: JAX does not put keys on devices of other processes.
    step_key = jax.random.wrap_key_data(
        jax.device_put(jax.random.key_data(step_key), replicated)
    )
    restored = checkpoints.restore(state)
    if restored is not None:
      state = restored[0]
      logging.info("Resuming at step %d.", restored[2])
    else:
      folder.check_fresh()
      if is_pretrained:
        state = initial.start(plain, model, state)
    start = int(state.step)
    # Only now: a config that the run cannot go on with replaces none.
    folder.write_config(plain)
    logging.info(
        "%s with %s, %s parameters, %d images to train on, %d to evaluate.",
        config.model.backbone.name,
        config.model.head.name,
        f"{num_params:,}",
        len(train_source),
        len(eval_source),
    )

    predictor = experiment.build_predictor(
        plain, model, mesh, inference_settings
    )
    reports = reports_lib.Reports(
        spec,
        predictor,
        eval_source,
        folder,
        checkpoints,
        stop,
        start=start,
        total_steps=config.total_steps,
        eval_every=config.get("eval_every", config.total_steps),
        eval_split=config.data.eval_split,
        protocol=experiment.protocol(plain),
        num_pictures=plain.get("eval", {}).get("num_pictures", 4),
    )
    evaluated = reports.done(start)
    folder.metrics.start(start, evaluated)
    if start and reports.due(start) and not evaluated:
      # The run was stopped between this checkpoint and its evaluation.
      reports.evaluate(start, state, _variables(state))

    batches = pipeline.train_batches(
        train_source,
        augmentation,
        batch_size=config.batch_size,
        seed=config.seed,
        step=start,
        num_workers=config.data.get("num_workers", 0),
        shard=(jax.process_index(), jax.process_count()),
    )
    batch_sharding = NamedSharding(mesh, P(step_lib.AXIS))
    meter = progress.Meter(config.batch_size, config.total_steps)
    previous = None
    with (
        progress.Progress(config.total_steps, start) as display,
        contextlib.closing(batches),
    ):
      for step in range(start + 1, config.total_steps + 1):
        with meter.waiting_for_data():
          batch = next(batches)
        index = batch.pop("index")
        if previous is None:
          for label, i in zip(batch["label"], index, strict=True):
            spec.check_label(label, f"example {i}")
        batch = {
            name: jax.make_array_from_process_local_data(batch_sharding, x)
            for name, x in batch.items()
        }
        compiling = time.perf_counter()
        state, scalars = train_step(state, batch, step_key)
        if previous is None:
          logging.info(
              "Compiled the training step in %.1f s.",
              time.perf_counter() - compiling,
          )
        else:
          # One step late: the device is never idle while the host looks.
          _require_finite(*previous, checkpoints)
        previous = (step, scalars, index)
        meter.count_step()

        last = step == config.total_steps
        stopping = stop.agreed()
        logs = step % config.get("log_every", 10) == 0 or last
        saves = (
            step % config.get("checkpoint_every", 1000) == 0
            or reports.due(step)
            or stopping
        )
        if logs or saves:
          _require_finite(*previous, checkpoints)
        if logs:
          scalars = {k: float(v) for k, v in jax.device_get(scalars).items()}
          scalars["learning_rate"] = float(schedule(step - 1))
          pace = meter.read(step)
          folder.metrics.write(step, scalars | pace)
          display.update(step, scalars, **pace)
        if saves:
          _require_finite_state(step, state, index, checkpoints)
          checkpoints.save(step, state, {"data_step": step})
        checkpoints.poll()
        if stopping and not last:
          checkpoints.wait()
          raise errors.Preempted(
              f"stopped by {stop.name} at step {step}, saved; run the same"
              " command again to go on"
          )
        if reports.due(step):
          with meter.paused():
            reports.evaluate(step, state, _variables(state))
    checkpoints.wait()
    reports.finish()
    return state


def _variables(state):
  return {"params": state.params, **state.model_state}


def _require_finite(step, scalars, index, checkpoints):
  """Raises unless loss and gradient of a step are finite."""
  for name in ("loss/total", "grad_norm"):
    value = float(scalars[name])
    if not math.isfinite(value):
      _stop_not_finite(f"{name} is {value}", step, index, checkpoints)


def _require_finite_state(step, state, index, checkpoints):
  """Raises unless what is about to be saved is finite.

  A loss can be finite although a running variance overflowed: batch norm then
  divides by infinity.
  """
  finite = jax.device_get(_finite(state))
  for path, is_finite in jax.tree_util.tree_leaves_with_path(finite):
    if not is_finite:
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      _stop_not_finite(f"{name} is not finite", step, index, checkpoints)


@jax.jit
def _finite(state):
  return jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), state)


def _stop_not_finite(what, step, index, checkpoints):
  checkpoints.wait()
  saved = checkpoints.steps()
  raise errors.NonFiniteError(
      f"{what} at step {step} (examples"
      f" {', '.join(str(int(i)) for i in index)}); nothing of it was"
      f" saved, last good checkpoint: {saved[-1] if saved else 'none'};"
      " lower config.optim.learning_rate or look at these examples"
  )
