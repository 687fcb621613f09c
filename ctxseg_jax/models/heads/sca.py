"""Selective context aggregation (SCA) around another head.

Reference: Wang et al., "Neuron-level Selective Context Aggregation for Scene
Segmentation", 2017, https://arxiv.org/abs/1711.08278. The authors published no
code. A summary of the paper, with pseudo-code, gives the predictor 512 inputs
and one output per class, and applies it to what a whole network returns;
`Reading` has the three consistent ways. It does not say how the four branches
are combined, nor how they start; here they are summed, as in DeepLabV2, and
start as its classifier, N(0, 0.01).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers

# What context is predicted from, and added to; see `SCAHead`.
Reading = Literal["features", "logits", "scores"]


def aggregate_context(x: jax.Array, dependencies: jax.Array) -> jax.Array:
  """Adds the mean of the image to each neuron, weighted by its dependency.

  The paper's context aggregation operator, x + GAP(x) * D. Features x,
  dependencies D and the result, in the dtype of x, are [B, H, W, C]; the mean
  is float32.
  """
  context = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
  return x + (context * dependencies.astype(jnp.float32)).astype(x.dtype)


class DependencyPredictor(nn.Module):
  """Predicts how far each neuron depends on the context of the image.

  `num_outputs` is per position; the other fields are `SCAHead`'s.
  """

  num_outputs: int
  channels: int
  rates: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to dependencies [B, H, W, num_outputs]."""
    kw = dict(kernel_init=nn.initializers.normal(0.01), dtype=self.dtype)
    x = nn.relu(layers.conv(self.channels, name="reduce", **kw)(x))
    return sum(
        layers.conv(self.num_outputs, dilation=rate, name=f"branch{i}", **kw)(x)
        for i, rate in enumerate(self.rates, start=1)
    )


class SCAHead(layers.CheckedModule):
  """Selective context aggregation before, or behind, a host head.

  Its small initial weights make it start near the identity.

  Attributes:
    host: The head that classifies.
    reading: What context is predicted from, and added to. "features": both are
      stage 4, before the host (the default: neurons are features). "logits":
      both are the host's logits (the order of the pseudo-code). "scores":
      predicted from stage 4, added to the host's logits.
    channels: Width of the predictor's hidden layer (256).
    rates: Dilations of the predictor's branches (1, 2, 4, 8).
  """

  num_classes: bounds.PositiveInt
  host: nn.Module
  reading: Reading = "features"
  channels: bounds.PositiveInt = 256
  rates: bounds.PositiveInts = (1, 2, 4, 8)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Returns the host's outputs; context is added to `"stage4"` or logits."""
    x = features["stage4"]
    if self.reading == "features":
      x = x.astype(self.dtype)
      x = self._aggregate(x, self._predict(x, x.shape[-1], self.dtype))
      return self.host({**features, "stage4": x}, train=train)
    out = dict(self.host(features, train=train))
    logits = out["logits"]
    if self.reading == "logits":
      dependencies = self._predict(logits, self.num_classes, jnp.float32)
    else:
      if logits.shape[:3] != x.shape[:3]:
        raise ValueError(
            "reading='scores' needs logits at the size of stage 4, got"
            f" {logits.shape[1:3]} and {x.shape[1:3]}; use 'features'"
        )
      dependencies = self._predict(x, self.num_classes, self.dtype)
    out["logits"] = self._aggregate(logits, dependencies)
    return out

  def _aggregate(self, x, dependencies):
    y = aggregate_context(x, dependencies)
    layers.expose(self, dependencies=dependencies, before=x, added=y - x)
    return y

  def _predict(self, x, num_outputs, dtype):
    return DependencyPredictor(
        num_outputs, self.channels, self.rates, dtype, name="predictor"
    )(x)
