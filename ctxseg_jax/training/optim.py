"""SGD with momentum, learning-rate schedules and parameter groups."""

from collections.abc import Callable
from collections.abc import Mapping
import fnmatch
from typing import Any

import jax
import optax

from ctxseg_jax import errors
from ctxseg_jax import settings


def poly(
    learning_rate: float,
    total_steps: int,
    power: float = 0.9,
    end_value: float = 0.0,
) -> optax.Schedule:
  """Polynomial decay: (lr - end) * (1 - step / total) ** power + end.

  Args:
    learning_rate: Value at step 0.
    total_steps: Steps until `end_value`.
    power: Exponent (0.9 in the papers).
    end_value: Value at the end (mmsegmentation: 1e-4).
  """
  return optax.polynomial_schedule(
      learning_rate, end_value, power, transition_steps=total_steps
  )


def cosine(
    learning_rate: float, total_steps: int, end_value: float = 0.0
) -> optax.Schedule:
  """Half a cosine from `learning_rate` to `end_value`."""
  alpha = end_value / learning_rate if learning_rate else 0.0
  return optax.cosine_decay_schedule(learning_rate, total_steps, alpha)


def constant(learning_rate: float, total_steps: int) -> optax.Schedule:
  """The same rate at every step."""
  del total_steps
  return optax.constant_schedule(learning_rate)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "poly": poly,
}


def _is_kernel(path, leaf):
  del path
  return leaf.ndim > 1


# Which parameters decay: everything (PyTorch-Encoding, mmsegmentation), or
# only what has more than one dimension: no biases, no batch norms, no
# smoothing factors (EMANet).
WEIGHT_DECAY_MASKS = {
    "all": lambda path, leaf: True,
    "kernels": _is_kernel,
}


def make(
    config: Mapping[str, Any], *, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Builds the optimiser that `config.optim` describes.

  The update is PyTorch's: v <- momentum * v + (gradient + decay * parameter),
  parameter <- parameter - rate * multiplier * v.

  Args:
    config: Keys `learning_rate`; optionally `momentum`, `weight_decay`,
      `weight_decay_mask` (a key of `WEIGHT_DECAY_MASKS`), `lr_multipliers`
      (parameters to factor: a part such as `head`, or a pattern of paths such
      as `head/*/bias`; the factors of all that match are multiplied) and
      `schedule` (a `name` of `SCHEDULES` and its arguments; `warmup_steps`
      rises from 0 first).
    total_steps: Updates of the whole training.

  Returns:
    The transformation and the schedule of the base learning rate.

  Raises:
    UserError: An unknown key or name.
  """
  settings.check_keys(
      config,
      (
          "momentum",
          "weight_decay",
          "weight_decay_mask",
          "lr_multipliers",
          "schedule",
      ),
      "optim",
      required=("learning_rate",),
  )
  schedule = _schedule(
      dict(config.get("schedule", dict(name="poly"))),
      config["learning_rate"],
      total_steps,
  )
  decays = settings.lookup(
      WEIGHT_DECAY_MASKS,
      config.get("weight_decay_mask", "all"),
      "config: optim.weight_decay_mask",
  )
  multipliers = dict(config.get("lr_multipliers", {}))
  tx = optax.chain(
      optax.add_decayed_weights(
          config.get("weight_decay", 0.0),
          mask=lambda params: jax.tree_util.tree_map_with_path(decays, params),
      ),
      optax.trace(config.get("momentum", 0.9)),
      _scale_groups(multipliers),
      optax.scale_by_learning_rate(schedule),
  )
  return tx, schedule


def _schedule(section, learning_rate, total_steps):
  name = section.pop("name", "poly")
  factory = settings.lookup(SCHEDULES, name, "config: optim.schedule.name")
  warmup = section.pop("warmup_steps", 0)
  if not 0 <= warmup < max(total_steps, 1):
    raise errors.UserError(
        f"config: optim.schedule.warmup_steps: {warmup} is not between 0 and"
        f" total_steps={total_steps}"
    )
  schedule = settings.build(
      factory,
      section,
      "optim.schedule",
      learning_rate=learning_rate,
      total_steps=total_steps - warmup,
  )
  if not warmup:
    return schedule
  return optax.join_schedules(
      [optax.linear_schedule(0.0, learning_rate, warmup), schedule], [warmup]
  )


def _scale_groups(multipliers):
  """Scales the updates of the parameters that patterns name."""

  def update(updates, state, params=None):
    del params
    unmatched = set(multipliers)

    def scale(path, leaf):
      name = _path(path)
      factor = 1.0
      for pattern, multiplier in multipliers.items():
        if _matches(name, pattern):
          unmatched.discard(pattern)
          factor *= multiplier
      return leaf if factor == 1.0 else factor * leaf

    scaled = jax.tree_util.tree_map_with_path(scale, updates)
    if unmatched:
      raise errors.UserError(
          f"config: optim.lr_multipliers: no part {min(unmatched)!r} in the"
          f" model; it has {', '.join(sorted(updates))}, and patterns match"
          " paths such as "
          f"'{_path(jax.tree_util.tree_flatten_with_path(updates)[0][-1][0])}'"
      )
    return scaled, state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _matches(name, pattern):
  return name.startswith(f"{pattern}/") or fnmatch.fnmatchcase(name, pattern)


def _path(keys):
  return "/".join(key.key for key in keys)
