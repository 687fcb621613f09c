"""The state of a training run and the step that advances it.

The step is `jit(shard_map(...))` over one mesh axis. The loss is formed over
the whole batch of all devices *inside* the differentiated function, so its
gradients arrive summed and no collective touches them.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import optax

from ctxseg_jax import errors
from ctxseg_jax import losses
from ctxseg_jax import settings
from ctxseg_jax.models.layers import normalize_images

AXIS = "data"

# Values that modules sow to be logged; neither state nor supervised.
DIAGNOSTICS = "diagnostics"

# Scalars, 0 or 1, by which a part of a module comes in after a warm-up. They
# are state, so that a network is evaluated as it was trained.
SWITCHES = "switches"


@flax.struct.dataclass
class TrainState:
  """Everything a step changes.

  Attributes:
    step: Updates done, int32 scalar.
    params: Parameters.
    model_state: Every other collection of the model, by name.
    opt_state: State of the optimiser.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: optax.OptState


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    key: jax.Array,
    image_size: Sequence[int],
) -> TrainState:
  """Initialises parameters, collections and the optimiser.

  Args:
    model: The network.
    tx: The optimiser.
    key: Random key of the parameters.
    image_size: (H, W) of training images.
  """

  @jax.jit
  def init(key):
    images = jnp.zeros((1, *image_size, 3))
    variables = model.init({"params": key}, images, train=False)
    variables.pop(DIAGNOSTICS, None)
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=tx.init(params),
    )

  return init(key)


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    loss_terms: Mapping[str, Mapping[str, Any]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    ignore_label: int = 255,
    switches: Mapping[str, int] | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Compiles one update over all devices of the mesh.

  Args:
    model: The network, built with `bn_axis_name=AXIS`.
    tx: The optimiser.
    mesh: A mesh with the one axis `AXIS`.
    loss_terms: One entry per supervised output: its `loss` (a key of
      `losses.LOSSES`), its `weight`, the `start_step` before which it counts
      nothing, for a sum over pixels its `denominator` (a key of
      `losses.DENOMINATORS`), and options of that loss.
    mean: Mean of the images' channels, 0 to 255.
    std: Standard deviation of the images' channels.
    ignore_label: Label of pixels without a class.
    switches: The step from which each switch of the model is on; 0 if not
      named.

  Returns:
    A function of the state (donated), a batch sharded over `AXIS` of uint8
    `"image"` [B, H, W, 3] and `"label"` [B, H, W] or [B], and a random key. It
    returns the new state and scalars: `loss/total`, `loss/<output>` (before
    its weight), `grad_norm`, and what the modules sow as diagnostics.

  Raises:
    UserError: An unknown loss; when the step is traced, an output or a switch
      the model does not have, or a loss that refuses its options or output.
  """
  terms = {name: _loss_term(name, term) for name, term in loss_terms.items()}

  def loss_fn(params, model_state, batch, key, step):
    images = normalize_images(batch["image"], mean, std)
    out, updated = model.apply(
        {"params": params, **model_state},
        images,
        train=True,
        mutable=[*model_state, DIAGNOSTICS],
        rngs={"dropout": key},
    )
    sown = updated.pop(DIAGNOSTICS, {})
    sums = {}
    labels = {}
    for name, term in terms.items():
      if name not in out:
        raise errors.UserError(
            f"config: loss.{name}: the model has no such output;"
            f" it has {', '.join(sorted(out))}"
        )
      labels[name] = batch["label"]
      if name == "logits" and out[name].ndim != batch["label"].ndim + 1:
        kinds = {2: "one class per image", 4: "maps of classes"}
        raise errors.UserError(
            f"config: model.head: its logits are {kinds[out[name].ndim]}, the"
            " labels of the data set are not; choose another head or data set"
        )
      if out[name].ndim == 4 and out[name].shape[:3] != batch["label"].shape:
        labels[name] = losses.resize_labels(
            batch["label"], out[name].shape[1:3]
        )
      try:
        total, count = term.loss(
            out[name], labels[name], ignore_label=ignore_label
        )
      except (TypeError, ValueError) as e:
        raise errors.UserError(f"config: loss.{name}: {e}") from e
      sums[name] = (total, count.astype(jnp.float32))
    # Averaged over the labelled pixels of the whole batch, not per device;
    # one collective carries all terms.
    sums, sown = jax.lax.psum((sums, sown), AXIS)
    scalars = {"loss/total": jnp.zeros(())}
    for name, term in terms.items():
      total, count = sums[name]
      num_images = labels[name].shape[0] * mesh.size
      num_pixels = labels[name].size * mesh.size
      count = term.denominator(count, num_images, num_pixels)
      value = total / jnp.where(count > 0, count, 1.0)
      scalars[f"loss/{name}"] = value
      counts = step >= term.start_step
      scalars["loss/total"] += jnp.where(counts, term.weight * value, 0.0)
    for path, values in flax.traverse_util.flatten_dict(sown).items():
      name = "/".join((DIAGNOSTICS, path[0], path[-1]))
      scalars[name] = values[0] / mesh.size
    return scalars["loss/total"], (updated, scalars)

  def train_step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    # The loss is already global, so these gradients are too: with check_vma
    # (the default) a pmean here would be wrong.
    grads, (model_state, scalars) = jax.grad(loss_fn, has_aux=True)(
        state.params,
        _set_switches(state.model_state, switches or {}, state.step),
        batch,
        key,
        state.step,
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        opt_state=opt_state,
    )
    return state, scalars | {"grad_norm": optax.tree.norm(grads)}

  sharded = jax.shard_map(
      train_step,
      mesh=mesh,
      in_specs=(P(), P(AXIS), P()),
      out_specs=(P(), P()),
  )
  return jax.jit(sharded, donate_argnums=0)


def _set_switches(model_state, switches, step):
  """Returns the collections with every switch on or off at this step."""
  found = flax.traverse_util.flatten_dict(dict(model_state.get(SWITCHES, {})))
  settings.check_keys(switches, {path[-1] for path in found}, "switches")
  if not found:
    return model_state
  values = {
      path: (step >= switches.get(path[-1], 0)).astype(jnp.float32)
      for path in found
  }
  return {**model_state, SWITCHES: flax.traverse_util.unflatten_dict(values)}


@dataclasses.dataclass(frozen=True)
class _LossTerm:
  """How one output is supervised; see `make_train_step`."""

  loss: Callable[..., tuple[jax.Array, jax.Array]]
  weight: float
  start_step: int
  denominator: Callable[[jax.Array, int, int], jax.Array]


def _loss_term(name, section):
  """Returns a loss with its options bound, and how its mean is taken."""
  where = f"loss.{name}"
  options = dict(section)
  if "loss" not in options:
    raise errors.UserError(f"config: missing key '{where}.loss'")
  loss = options.pop("loss")
  function = settings.lookup(losses.LOSSES, loss, f"config: {where}.loss")
  weight = options.pop("weight", 1.0)
  start_step = options.pop("start_step", 0)
  denominator = "labelled"
  if loss in losses.PIXEL_LOSSES:
    denominator = options.pop("denominator", denominator)
  return _LossTerm(
      settings.bind(function, options, where, reserved=("ignore_label",)),
      weight,
      start_step,
      settings.lookup(
          losses.DENOMINATORS, denominator, f"config: {where}.denominator"
      ),
  )
