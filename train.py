"""Trains a network. Kept short: the work is in ctxseg_jax.training.loop.

  python train.py --config configs/quickstart.py --workdir runs/quickstart

The same command again resumes. Exit codes: 0 done, 2 something to mend (one
line says what), 3 loss not finite, 4 work dir in use, 75 stopped by a signal
after saving, 130 interrupted before there was anything to save.
"""

from absl import flags

from ctxseg_jax import commands


def main(argv):
  del argv
  # Imported late: workers of the input pipeline import this file too, and
  # errors in flags should not wait for JAX.
  import jax

  from ctxseg_jax import errors
  from ctxseg_jax import experiment

  given = flags.FLAGS
  where = (given.coordinator_address, given.num_processes, given.process_id)
  flags_of_where = "--coordinator_address, --num_processes and --process_id"
  if given.distributed:
    try:
      jax.distributed.initialize(*where)
    except ValueError as e:
      raise errors.UserError(
          f"--distributed: no cluster found ({e}); pass {flags_of_where}"
      ) from e
  elif where != (None, None, None):
    raise errors.UserError(f"{flags_of_where} need --distributed")
  experiment.train_and_evaluate(
      given.config,
      given.workdir,
      allow_config_change=given.allow_config_change,
  )


if __name__ == "__main__":
  commands.define_config()
  flags.DEFINE_string("workdir", None, "Folder the run writes to.")
  flags.DEFINE_bool(
      "allow_config_change", False, "Resume although the config has changed."
  )
  flags.DEFINE_bool(
      "distributed", False, "Train on several hosts (found from the cluster)."
  )
  flags.DEFINE_string(
      "coordinator_address", None, "host:port of process 0, if not found."
  )
  flags.DEFINE_integer(
      "num_processes", None, "Number of processes, if it is not found."
  )
  flags.DEFINE_integer(
      "process_id", None, "Number of this process, if it is not found."
  )
  flags.mark_flags_as_required(["config", "workdir"])
  commands.run(main)
