"""The state of a training run and the step that advances it.

The step is `jit(shard_map(...))` over one mesh axis. The loss is formed over
the whole batch of all devices *inside* the differentiated function, so its
gradients arrive summed and no collective touches them.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax

from ctxseg_jax import errors
from ctxseg_jax import losses
from ctxseg_jax import schema
from ctxseg_jax.models.layers import normalize_images
from ctxseg_jax.training import chunks
from ctxseg_jax.training import freezing

AXIS = "data"

# Values that modules sow to be logged; neither state nor supervised.
DIAGNOSTICS = "diagnostics"

# Scalars, 0 or 1, by which a part of a module comes in after a warm-up. They
# are state, so that a network is evaluated as it was trained.
SWITCHES = "switches"


def make_mesh() -> jax.sharding.Mesh:
  """Returns the mesh of all devices of all processes, with one axis."""
  return jax.sharding.Mesh(np.array(jax.devices()), (AXIS,))


@flax.struct.dataclass
class TrainState:
  """Everything a step changes.

  Attributes:
    step: Updates done, int32 scalar.
    params: Parameters.
    model_state: Every other collection of the model, by name.
    opt_state: State of the optimiser.
    average: Exponential moving average of the parameters; None without one.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: optax.OptState
  average: Any = None

  @property
  def variables(self) -> dict[str, Any]:
    """What the network is evaluated with: the average, if there is one."""
    params = self.params if self.average is None else self.average
    return {"params": params, **self.model_state}


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    key: jax.Array,
    image_size: Sequence[int],
    *,
    average: bool = False,
) -> TrainState:
  """Initialises the state; `average`: with an average of the parameters."""
  images = jnp.zeros((1, *image_size, 3))
  variables = model.init({"params": key}, images, train=False)
  variables.pop(DIAGNOSTICS, None)
  params = variables.pop("params")
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=variables,
      opt_state=tx.init(params),
      average=jax.tree.map(jnp.copy, params) if average else None,
  )


def run_once(function: Callable[..., Any], *args: Any) -> Any:
  """Calls a function as one program that is not used again.

  On CPUs it compiles in a quarter of the time with fewer optimisations, and an
  initialisation has the same values. TPUs do not know the option.
  """
  options = None
  if jax.default_backend() == "cpu":
    options = {"xla_backend_optimization_level": 1}
  return jax.jit(function, compiler_options=options)(*args)


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    terms: Mapping[str, losses.Term],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    ignore_label: int = 255,
    switches: Mapping[str, int] | None = None,
    accumulate_steps: int = 1,
    ema_decay: float | None = None,
    frozen: Sequence[str] = (),
    warp: (
        Callable[[Mapping[str, jax.Array]], Mapping[str, jax.Array]] | None
    ) = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Compiles one update over all devices of the mesh.

  Args:
    model: The network, built with `bn_axis_name=AXIS`.
    tx: The optimiser.
    mesh: A mesh with the one axis `AXIS`.
    terms: The terms of the loss, by name.
    mean: Mean of the images' channels, 0 to 255.
    std: Standard deviation of the images' channels.
    ignore_label: Label of pixels without a class.
    switches: As `RunOptions.switches`.
    accumulate_steps: As `Optimizer.accumulate_steps`.
    ema_decay: As `Optimizer.ema_decay`, but in the first steps no more than
      (1 + step) / (10 + step), so that the average forgets the initialisation.
    frozen: As `Optimizer.freeze`; the optimiser has to know of it.
    warp: Makes `"image"` and `"label"` of batches that have a `"matrix"`; see
      `training.warping`.

  Returns:
    A function of the state (donated), a batch sharded over `AXIS` of uint8
    `"image"` [B, H, W, 3] and `"label"` [B, H, W] or [B], and a random key. It
    returns the new state and scalars: `loss/total`, `loss/<term>` (before
    its weight), `grad_norm`, and what the modules sow as diagnostics.

  Raises:
    UserError: When the step is traced: an output or a switch the model does
      not have, or a loss that refuses its options or output.
  """

  gradient = jax.grad(
      _make_loss(
          model, terms, mesh.size, mean, std, ignore_label, frozen, warp
      ),
      has_aux=True,
  )
  if accumulate_steps > 1:
    gradient = _accumulated(gradient, accumulate_steps)
  gradient = _summed(gradient)

  def train_step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    trained, kept = freezing.split(state.params, frozen)
    grads, (model_state, scalars) = gradient(
        trained,
        kept,
        _set_switches(state.model_state, switches or {}, state.step),
        batch,
        key,
        state.step,
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    trained = optax.apply_updates(trained, updates)
    average = state.average
    if ema_decay is not None:
      decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
      average, kept_average = freezing.split(average, frozen)
      average = optax.incremental_update(trained, average, 1 - decay)
      average = freezing.merge(average, kept_average)
    state = state.replace(
        step=state.step + 1,
        params=freezing.merge(trained, kept),
        model_state=model_state,
        opt_state=opt_state,
        average=average,
    )
    return state, scalars | {"grad_norm": optax.tree.norm(grads)}

  sharded = jax.shard_map(
      train_step,
      mesh=mesh,
      in_specs=(P(), P(AXIS), P()),
      out_specs=(P(), P()),
  )
  return jax.jit(sharded, donate_argnums=0)


def _make_loss(
    model, terms, num_devices, mean, std, ignore_label, frozen, warp
):
  chunked = any(term.num_chunks > 1 for term in terms.values())
  options = dict(upsample=False) if chunked else {}

  def loss_fn(trained, kept, model_state, batch, key, step):
    if "matrix" in batch:
      batch = warp(batch)
    images = normalize_images(batch["image"], mean, std)
    with freezing.running(frozen):
      out, updated = model.apply(
          {"params": freezing.merge(trained, kept), **model_state},
          images,
          train=True,
          mutable=[*model_state, DIAGNOSTICS],
          rngs={"dropout": key},
          **options,
      )
    maps = out
    if chunked and model.upsample_in_training:
      # Those of chunked terms are not used, and so not computed.
      out = model.upsample(maps, images.shape[1:3])
    sown = updated.pop(DIAGNOSTICS, {})
    sums = {}
    sizes = {}
    for name, term in terms.items():
      labels = _labels_for(out, name, term, batch["label"])
      try:
        output = out[term.output]
        if term.num_chunks > 1 and output is not maps[term.output]:
          total, count = chunks.upsampled_loss(
              term.loss,
              maps[term.output],
              labels,
              num_chunks=term.num_chunks,
              align_corners=model.align_corners,
              ignore_label=ignore_label,
          )
        else:
          total, count = term.loss(output, labels, ignore_label=ignore_label)
      except ValueError as e:
        raise errors.UserError(f"config: loss.{name}: {e}") from e
      sums[name] = (total, count.astype(jnp.float32))
      sizes[name] = (labels.shape[0] * num_devices, labels.size * num_devices)
    # Averaged over the labelled pixels of the whole batch, not per device;
    # one collective carries all terms.
    sums, sown = jax.lax.psum((sums, sown), AXIS)
    scalars = {"loss/total": jnp.zeros(())}
    for name, term in terms.items():
      value = term.mean(*sums[name], *sizes[name])
      scalars[f"loss/{name}"] = value
      counts = step >= term.start_step
      scalars["loss/total"] += jnp.where(counts, term.weight * value, 0.0)
    for path, values in flax.traverse_util.flatten_dict(sown).items():
      name = "/".join((DIAGNOSTICS, path[0], path[-1]))
      scalars[name] = values[0] / num_devices
    return scalars["loss/total"], (updated, scalars)

  return loss_fn


def _summed(gradient):
  """Returns gradients summed over the devices, once and in float32.

  The loss is that of all devices, so that each has its part of the gradient.
  """

  def summed(trained, *args):
    # Gradients of parameters that vary over devices do so too, and are not
    # summed before; of parameters that do not, they would be summed where
    # these first meet an image: behind a cast to bfloat16, in bfloat16.
    varying = jax.tree.map(
        lambda x: jax.lax.pcast(x, AXIS, to="varying"), trained
    )
    grads, aux = gradient(varying, *args)
    return jax.lax.psum(grads, AXIS), aux

  return summed


def _accumulated(gradient, num_parts):
  """Returns the mean of gradients of parts."""

  def accumulated(trained, kept, model_state, batch, key, step):
    def add_part(carry, part):
      total, model_state = carry
      index, batch = part
      key_of_part = jax.random.fold_in(key, index)
      grads, (model_state, scalars) = gradient(
          trained, kept, model_state, batch, key_of_part, step
      )
      return (optax.tree.add(total, grads), model_state), scalars

    parts = jax.tree.map(
        lambda x: x.reshape(num_parts, -1, *x.shape[1:]), batch
    )
    (total, model_state), scalars = jax.lax.scan(
        add_part,
        (optax.tree.zeros_like(trained), model_state),
        (jnp.arange(num_parts), parts),
    )
    grads = optax.tree.scale(1 / num_parts, total)
    return grads, (model_state, jax.tree.map(jnp.mean, scalars))

  return accumulated


def _set_switches(model_state, switches, step):
  """Returns the collections with every switch on or off at this step."""
  found = flax.traverse_util.flatten_dict(dict(model_state.get(SWITCHES, {})))
  schema.check_keys(switches, {path[-1] for path in found}, "switches")
  if not found:
    return model_state
  values = {
      path: (step >= switches.get(path[-1], 0)).astype(jnp.float32)
      for path in found
  }
  return {**model_state, SWITCHES: flax.traverse_util.unflatten_dict(values)}


def _labels_for(out, name, term, labels):
  """Returns the labels at the size of the output that a term supervises."""
  if term.output not in out:
    raise errors.UserError(
        f"config: loss.{name}: the model has no output {term.output!r};"
        f" it has {', '.join(sorted(out))}"
    )
  output = out[term.output]
  if term.output == "logits" and output.ndim != labels.ndim + 1:
    kinds = {2: "one class per image", 4: "maps of classes"}
    raise errors.UserError(
        f"config: model.head: its logits are {kinds[output.ndim]}, the"
        " labels of the data set are not; choose another head or data set"
    )
  if output.ndim == 4 and output.shape[:3] != labels.shape:
    return losses.resize_labels(labels, output.shape[1:3])
  return labels
