"""Convolutions in the form that is fast where they run."""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax.models import atrous
from ctxseg_jax.models import channel_reduction
from ctxseg_jax.models import depthwise

# Name scope of convolutions that are products of matrices; see `macs`.
POINTWISE = "pointwise_convolution"

# Up to as many groups a convolution is one call for each.
_FEW_GROUPS = 4


def choose(*, train: bool) -> Callable[..., jax.Array]:
  """Returns what convolves in training, or in predictions."""
  return in_training if train else by_groups


def by_groups(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]] | str,
    *,
    rhs_dilation: Sequence[int] = (1, 1),
    feature_group_count: int = 1,
    of_one_group: Callable[..., jax.Array] = jax.lax.conv_general_dilated,
    **options: Any,
) -> jax.Array:
  """Convolves NHWC like `jax.lax.conv_general_dilated`, a group at a time.

  On a CPU two groups in one call took twelve times as long as two calls. Where
  groups are many it is one call; each channel is a group of its own in
  `depthwise.depthwise_conv`. A dilated kernel that meets few pixels is
  `atrous.atrous_conv`. What else has one group is convolved by `of_one_group`.
  """
  groups = feature_group_count
  args = (strides, padding)
  options["rhs_dilation"] = rhs_dilation
  if 1 < groups == inputs.shape[-1] == kernel.shape[-1]:
    return depthwise.depthwise_conv(inputs, kernel, *args, **options)
  if groups == 1 and atrous.is_worthwhile(inputs, kernel, *args, rhs_dilation):
    return atrous.atrous_conv(inputs, kernel, *args, **options)
  if groups == 1:
    return of_one_group(inputs, kernel, *args, **options)
  convolve = functools.partial(jax.lax.conv_general_dilated, **options)
  if groups > _FEW_GROUPS:
    return convolve(inputs, kernel, *args, feature_group_count=groups)
  parts = zip(
      jnp.split(inputs, groups, axis=-1),
      jnp.split(kernel, groups, axis=-1),
      strict=True,
  )
  return jnp.concatenate([convolve(x, k, *args) for x, k in parts], axis=-1)


def in_training(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]] | str,
    **kwargs: Any,
) -> jax.Array:
  """Convolves like `by_groups`; a 1x1 kernel is a product of matrices.

  XLA on a TPU cuts small batches of a convolution into tiles and carries that
  on to its neighbours: of the widest maps, which have 1x1 convolutions on both
  sides, it made copies. On a CPU the kernel's gradient of a convolution first
  moves the channels of both its inputs to the front, as does that of a product
  over an axis of four; of two axes there is nothing to move. Larger kernels
  that reduce channels are `channel_reduction.reducing_conv`.
  """
  pointwise = kernel.shape[:3] == (1, 1, inputs.shape[-1])
  padded = padding != "SAME" and np.any(padding)
  if not pointwise or padded or set(strides) != {1}:
    args = (inputs, kernel, strides, padding)
    return by_groups(*args, of_one_group=_of_one_group, **kwargs)
  kw = dict(precision=kwargs.get("precision"))
  return jax.lax.platform_dependent(
      inputs,
      kernel,
      cpu=functools.partial(multiply_pixels, **kw),
      default=functools.partial(multiply_channels, **kw),
  )


def _of_one_group(inputs, kernel, strides, padding, **options):
  if channel_reduction.is_worthwhile(kernel, strides, padding):
    convolve = channel_reduction.reducing_conv
  else:
    convolve = jax.lax.conv_general_dilated
  return convolve(inputs, kernel, strides, padding, **options)


@jax.named_scope(POINTWISE)
def multiply_channels(
    inputs: jax.Array, kernel: jax.Array, *, precision: Any = None
) -> jax.Array:
  """Returns the 1x1 convolution of [B, H, W, C] as a product of matrices."""
  over_channels = (((3,), (0,)), ((), ()))
  kw = dict(precision=precision)
  return jax.lax.dot_general(inputs, kernel[0, 0], over_channels, **kw)


@jax.named_scope(POINTWISE)
def multiply_pixels(
    inputs: jax.Array, kernel: jax.Array, *, precision: Any = None
) -> jax.Array:
  """Returns the same as `multiply_channels`, with all pixels along one axis."""
  pixels = inputs.reshape(-1, inputs.shape[-1])
  product = jnp.matmul(pixels, kernel[0, 0], precision=precision)
  return product.reshape(*inputs.shape[:3], -1)
