"""Optimisers, learning-rate schedules and parameter groups."""

import dataclasses
from typing import Literal

import jax
import optax

from ctxseg_jax import errors
from ctxseg_jax import patterns
from ctxseg_jax.bounds import DropoutRate as Momentum
from ctxseg_jax.bounds import NonNegativeFloat
from ctxseg_jax.bounds import NonNegativeInt
from ctxseg_jax.bounds import PositiveFloat
from ctxseg_jax.bounds import PositiveInt
from ctxseg_jax.training import freezing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """A learning rate by step.

  Attributes:
    warmup_steps: Steps over which the rate rises from 0 first.
  """

  warmup_steps: NonNegativeInt = 0

  def make(self, learning_rate: float, total_steps: int) -> optax.Schedule:
    """Returns the rate by step; refuses a warm-up that takes all steps."""
    warmup = self.warmup_steps
    if warmup >= max(total_steps, 1):
      raise errors.UserError(
          f"config: optim.schedule.warmup_steps: {warmup} is not between 0 and"
          f" total_steps={total_steps}"
      )
    decay = self.decay(learning_rate, total_steps - warmup)
    if not warmup:
      return decay
    rise = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.join_schedules([rise, decay], [warmup])

  def decay(self, learning_rate: float, steps: int) -> optax.Schedule:
    """Returns the rate after the warm-up."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poly(Schedule):
  """Polynomial decay: (rate - end) * (1 - step / total) ** power + end.

  Attributes:
    power: Exponent (0.9 in the papers).
    end_value: Rate at the end (mmsegmentation: 1e-4).
  """

  power: PositiveFloat = 0.9
  end_value: NonNegativeFloat = 0.0

  def decay(self, learning_rate: float, steps: int) -> optax.Schedule:
    return optax.polynomial_schedule(
        learning_rate, self.end_value, self.power, transition_steps=steps
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
  """Half a cosine from the learning rate to `end_value`.

  Attributes:
    end_value: Rate at the end.
  """

  end_value: NonNegativeFloat = 0.0

  def decay(self, learning_rate: float, steps: int) -> optax.Schedule:
    alpha = self.end_value / learning_rate if learning_rate else 0.0
    return optax.cosine_decay_schedule(learning_rate, steps, alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
  """The same rate at every step."""

  def decay(self, learning_rate: float, steps: int) -> optax.Schedule:
    return optax.constant_schedule(learning_rate)


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "poly": Poly,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  """What optimisers have in common.

  Attributes:
    learning_rate: The base rate, before schedule and multipliers.
    schedule: How the rate changes over the training.
    weight_decay: Factor of the decay; by SGD added to the gradient (L2), by
      AdamW to the update (decoupled).
    weight_decay_mask: Which parameters decay. "all": every one
      (PyTorch-Encoding, mmsegmentation). "kernels": only those of more than
      one dimension; no biases, batch norms or smoothing factors (EMANet).
    lr_multipliers: Factors of the rate by part, such as `head`, or by pattern
      of paths, such as `head/*/bias`. The factors of all that match a parameter
      are multiplied.
    freeze: Parts, or patterns of paths, as for `lr_multipliers`, that stay as
      they are, with their statistics; their batch norms normalise by those. No
      gradient of them is computed.
    clip_norm: The most that the global norm of the gradient may be; larger
      gradients are scaled down to it. None is no bound.
    accumulate_steps: Parts that each batch is computed in, one after the
      other, to save memory. Gradients are summed over devices once, after the
      last part; batch norm sees one part at a time.
    ema_decay: Share of the old value that an exponential moving average of the
      parameters keeps at each step. The average is evaluated and exported in
      place of the parameters. None is no average.
  """

  learning_rate: NonNegativeFloat
  schedule: Schedule = Poly()
  weight_decay: NonNegativeFloat = 0.0
  weight_decay_mask: Literal["all", "kernels"] = "all"
  lr_multipliers: dict[str, NonNegativeFloat] = dataclasses.field(
      default_factory=dict
  )
  freeze: tuple[str, ...] = ()
  clip_norm: PositiveFloat | None = None
  accumulate_steps: PositiveInt = 1
  ema_decay: Momentum | None = None

  def make(
      self, total_steps: int
  ) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns the transformation of gradients to updates, and its base rate.

    Raises:
      UserError: The warm-up takes all steps; when the transformation is used,
        a multiplier or what is frozen matches no parameter, or all is frozen.
    """
    schedule = self.schedule.make(self.learning_rate, total_steps)
    decays_all = self.weight_decay_mask == "all"
    decay = optax.add_decayed_weights(
        self.weight_decay,
        lambda params: jax.tree.map(lambda x: decays_all or x.ndim > 1, params),
    )
    clip = optax.identity()
    if self.clip_norm is not None:
      clip = optax.clip_by_global_norm(self.clip_norm)
    tx = optax.chain(
        clip,
        self.direction(decay),
        _scale_groups(self.lr_multipliers, self.freeze),
        optax.scale_by_learning_rate(schedule),
    )
    return freezing.freeze(tx, self.freeze), schedule

  def direction(
      self, decay: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """Returns what comes before the rate, with the weight decay in place."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
  """SGD with momentum, as PyTorch has it.

  v <- momentum * v + (gradient + decay * parameter),
  parameter <- parameter - rate * multiplier * v.

  Attributes:
    momentum: Share of the last update's direction that is kept.
    nesterov: Whether to look ahead by one update.
  """

  momentum: Momentum = 0.9
  nesterov: bool = False

  def direction(
      self, decay: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    return optax.chain(decay, optax.trace(self.momentum, self.nesterov))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
  """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

  Attributes:
    b1: Share kept by the mean of the gradients.
    b2: Share kept by the mean of their squares.
    eps: Added to the root of the latter.
  """

  b1: Momentum = 0.9
  b2: Momentum = 0.999
  eps: PositiveFloat = 1e-8

  def direction(
      self, decay: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)
    return optax.chain(adam, decay)


OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "sgd": SGD}


def _scale_groups(multipliers, frozen):
  # A multiplier of what is frozen has no effect, and is no mistake.
  checked = {
      pattern
      for pattern in multipliers
      if not patterns.matches_any(pattern, frozen)
  }

  def update(updates, params):
    del params
    names = []

    def scale(path, leaf):
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      names.append(name)
      factor = 1.0
      for pattern, multiplier in multipliers.items():
        if patterns.matches(name, pattern):
          factor *= multiplier
      return leaf if factor == 1.0 else factor * leaf

    scaled = jax.tree_util.tree_map_with_path(scale, updates)
    patterns.refuse_unmatched(checked, names, "optim.lr_multipliers")
    return scaled

  return optax.stateless(update)
