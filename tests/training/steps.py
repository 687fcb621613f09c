"""Training steps of tiny networks, for tests."""

import functools
import json

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import networks
import numpy as np

from ctxseg_jax import experiment
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import warping

MODEL = dict(
    backbone=dict(name="shallow", channels=8),
    head=dict(name="encnet", channels=8, num_codewords=4, dropout_rate=0.0),
    aux_head=dict(name="fcn", stage="stage3", channels=8, dropout_rate=0.0),
)
LOSS = dict(
    logits=dict(loss="softmax_cross_entropy", weight=1.0),
    aux_logits=dict(loss="softmax_cross_entropy", weight=0.4),
    se_logits=dict(loss="presence_bce", weight=0.2),
)
NUM_CLASSES = 3


def make_batch(seed=0, size=16):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, NUM_CLASSES, (8, size, size)).astype(np.uint8)
  label[0] = 255  # Devices see different numbers of labelled pixels:
  label[1, :12] = 255  # none, a quarter, all.
  return {
      "image": rng.integers(0, 256, (8, size, size, 3)).astype(np.uint8),
      "label": label,
  }


def make_step(num_devices, model=None, loss=None, switches=None, **optimizer):
  """Returns the step, a state to start from, and what puts batches in place.

  The state is filled with numbers: compiling an initialisation takes longer
  than compiling the step.
  """
  optimizer = dict(learning_rate=0.1) | optimizer
  built = num_devices, model or MODEL, loss or LOSS, switches, optimizer
  step, state, put = _make_step(json.dumps(built))
  return step, jax.tree.map(jnp.copy, state), put  # The step donates it.


@functools.cache
def _make_step(built):
  """Makes each step once, since compiling it takes the time."""
  num_devices, model, loss, switches, optimizer = json.loads(built)
  mesh = jax.sharding.Mesh(
      np.array(jax.devices()[:num_devices]), (step_lib.AXIS,)
  )
  net = experiment.build_model(model, NUM_CLASSES, bn_axis_name=step_lib.AXIS)
  optimizer = experiment.build_optimizer(optimizer)
  tx, _ = optimizer.make(10)
  variables = networks.uniform(net, (16, 16), kernels=0.3)
  variables.pop(step_lib.DIAGNOSTICS, None)
  if step_lib.SWITCHES in variables:
    on = jax.tree.map(np.ones_like, variables[step_lib.SWITCHES])
    variables[step_lib.SWITCHES] = on
  params = variables.pop("params")
  state = step_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=variables,
      opt_state=tx.init(params),
      average=None if optimizer.ema_decay is None else params,
  )
  state = jax.device_put(state, NamedSharding(mesh, P()))
  step = step_lib.make_train_step(
      net,
      tx,
      mesh,
      experiment.build_terms(loss),
      mean=(127,) * 3,
      std=(60,) * 3,
      switches=switches,
      accumulate_steps=optimizer.accumulate_steps,
      ema_decay=optimizer.ema_decay,
      frozen=optimizer.freeze,
      warp=functools.partial(
          warping.warp,
          crop_size=(16, 16),
          pad_color=(127,) * 3,
          ignore_label=255,
      ),
  )

  def put(batch):
    return jax.device_put(batch, NamedSharding(mesh, P(step_lib.AXIS)))

  return step, state, put


def run_steps(step, state, put, steps=1):
  """Returns the state and the scalars after steps with batches 0, 1, ..."""
  for i in range(steps):
    state, scalars = step(state, put(make_batch(i)), jax.random.key(1))
  return jax.device_get((state, scalars))
