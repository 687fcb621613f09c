"""Work dirs of small networks with random weights, made without training."""

import functools

import jax
import networks
import optax

from configs import context_scenes
from ctxseg_jax import experiment
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import workdir as workdir_lib


def make(path, head="fcn", *, average=False, **evaluation):
  """Writes a work dir with a best checkpoint at step 0.

  Args:
    path: The work dir.
    head: A variant of `configs/context_scenes.py`, with 8 channels.
    average: Whether there is an average of the parameters, which differs.
    **evaluation: Of `config.eval`.
  """
  config = _config(head)
  config["eval"] |= evaluation
  state = _state(head)
  if average:
    config["optim"]["ema_decay"] = 0.5
    state = state.replace(average=networks.perturb(state.params, 0.05))
  with workdir_lib.Workdir(path) as folder:
    folder.write_config(experiment.parse(config).config)
    checkpoint.save_best(folder.best, 0, state)
  return path


def _config(head):
  config = context_scenes.get_config(head).to_dict()
  config["model"]["backbone"]["channels"] = 8
  config["model"]["head"]["channels"] = 8
  config["data"]["crop_size"] = (32, 48)
  return config


@functools.cache
def _state(head):
  run = experiment.parse(_config(head))
  state = run.init_state(optax.identity(), jax.random.key(0))
  # Enough for classes to differ, and not to magnify rounding.
  params = networks.perturb(jax.device_get(state.params), 0.05)
  return state.replace(params=params)
