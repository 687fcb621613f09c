"""Trains a network. Kept short: the work is in ctxseg_jax.training.loop.

  python train.py --config configs/quickstart.py --workdir runs/quickstart

The same command again resumes. Exit codes: 0 done, 2 something to mend (one
line says what), 3 loss not finite, 4 work dir in use, 75 stopped by a signal
after saving.
"""

from absl import flags

from ctxseg_jax import commands

_CONFIG = commands.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder the run writes to.")
_ALLOW_CONFIG_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "Resume although the config has changed."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Train on several hosts (found from the cluster)."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0, if it is not found."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes, if it is not found."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, if it is not found."
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
  del argv
  # Imported late: workers of the input pipeline import this file too, and
  # errors in flags should not wait for JAX.
  import jax

  from ctxseg_jax import errors
  from ctxseg_jax import experiment

  where = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  flags_of_where = "--coordinator_address, --num_processes and --process_id"
  if _DISTRIBUTED.value:
    try:
      jax.distributed.initialize(*where)
    except ValueError as e:
      raise errors.UserError(
          f"--distributed: no cluster found ({e}); pass {flags_of_where}"
      ) from e
  elif where != (None, None, None):
    raise errors.UserError(f"{flags_of_where} need --distributed")
  experiment.train_and_evaluate(
      _CONFIG.value,
      _WORKDIR.value,
      allow_config_change=_ALLOW_CONFIG_CHANGE.value,
  )


if __name__ == "__main__":
  commands.run(main)
