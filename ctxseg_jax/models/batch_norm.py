"""Batch norm whose backward pass is written out.

Ioffe and Szegedy, "Batch Normalization", https://arxiv.org/abs/1502.03167. The
derivative of Flax's keeps the centred input in float32, and a ReLU behind it
where it was positive. Here the input alone is kept, in its own dtype, and the
rest computed again.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models import varying


class BatchNorm(nn.BatchNorm):
  """`nn.BatchNorm` in training: same fields, variables and values.

  Of its options it has none but the ones set by `layers.batch_norm`.

  Attributes:
    clip: Cut off what is below 0 or above this, too: infinity is a ReLU, 6 is
      ReLU6; None cuts nothing off.
  """

  clip: float | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises x over all axes but `axis`."""
    shape = (x.shape[self.axis],)
    f32 = jnp.float32
    kw = dict(shape=shape, dtype=f32)
    ra_mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(**kw))
    ra_var = self.variable("batch_stats", "var", lambda: jnp.ones(**kw))
    scale = self.param("scale", self.scale_init, shape, f32)
    bias = self.param("bias", self.bias_init, shape, f32)
    where = (self.axis % x.ndim, self.epsilon, self.dtype or x.dtype, self.clip)
    if self.use_running_average:
      return _affine(x, ra_mean.value, ra_var.value, scale, bias, *where)
    started = not self.is_initializing()
    axis_name = self.axis_name if started else None
    scale, bias = varying.vary_as(x, scale, bias)
    y, mean, var = _normalize(x, scale, bias, *where, axis_name)
    if started:
      old = self.momentum
      ra_mean.value = old * ra_mean.value + (1 - old) * mean
      ra_var.value = old * ra_var.value + (1 - old) * var
    return y


def _affine(x, mean, var, scale, bias, axis, epsilon, dtype, clip):
  """Returns (x - mean) / sqrt(var + epsilon) * scale + bias."""
  multiplier = jax.lax.rsqrt(var + epsilon) * scale
  centred = x.astype(jnp.float32) - _along(mean, x, axis)
  y = centred * _along(multiplier, x, axis) + _along(bias, x, axis)
  y = y.astype(dtype)
  if clip is None:
    return y
  return nn.relu(y) if clip == math.inf else jnp.clip(y, 0, clip)


def _along(vector, x, axis):
  """Shapes [C] so that it broadcasts along an axis of x."""
  return jnp.expand_dims(vector, [i for i in range(x.ndim) if i != axis])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6, 7))
def _normalize(x, scale, bias, axis, epsilon, dtype, clip, axis_name):
  """Returns x normalised by its mean and variance, and these, float32 [C]."""
  return _forward(x, scale, bias, axis, epsilon, dtype, clip, axis_name)[0]


def _forward(x, scale, bias, axis, epsilon, dtype, clip, axis_name):
  # Mean and mean of squares travel together.
  x32 = x.astype(jnp.float32)
  mean, mean_of_squares = _means(x32, jnp.square(x32), axis, axis_name)
  var = jnp.maximum(0.0, mean_of_squares - jnp.square(mean))
  # What follows waits for the statistics anyway. On a TPU a convolution of a
  # small batch returns tiles, which would be put together only where a float32
  # map is made of them.
  x = jax.lax.optimization_barrier(x)
  y = _affine(x, mean, var, scale, bias, axis, epsilon, dtype, clip)
  return (y, mean, var), (x, mean, var, scale, bias)


def _backward(axis, epsilon, dtype, clip, axis_name, residuals, cotangents):
  x, mean, var, scale, bias = residuals
  # Running statistics have no gradient.
  dy = cotangents[0].astype(jnp.float32)
  if clip is not None:
    y = _affine(x, mean, var, scale, bias, axis, epsilon, dtype, None)
    dy = jnp.where((y > 0) & (y < clip), dy, 0.0)
  centred = x.astype(jnp.float32) - _along(mean, x, axis)
  local = _local_means(dy, dy * centred, axis)
  over_all = _over_devices(local, axis_name)
  rsqrt = jax.lax.rsqrt(var + epsilon)
  slope = _along(jnp.square(rsqrt) * over_all[1], x, axis)
  dx = dy - _along(over_all[0], x, axis) - centred * slope
  dx = dx * _along(rsqrt * scale, x, axis)
  dbias, dscale = local * (x.size // x.shape[axis])
  return dx.astype(x.dtype), dscale * rsqrt, dbias


_normalize.defvjp(_forward, _backward)


def _means(a, b, axis, axis_name):
  return _over_devices(_local_means(a, b, axis), axis_name)


def _local_means(a, b, axis):
  """Returns the means of two maps over all axes but one, [2, C]."""
  axes = tuple(i for i in range(a.ndim) if i != axis)
  return jnp.stack([jnp.mean(a, axes), jnp.mean(b, axes)])


def _over_devices(means, axis_name):
  return means if axis_name is None else jax.lax.pmean(means, axis_name)
