"""Layers that more than one backbone or head uses."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Fan-out He: N(0, sqrt(2 / (k * k * C_out))), as the published ResNets.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# Name scope of matrix products that are no layers but resize or average maps;
# those who count multiply-accumulates leave them out.
FIXED_MATRICES = "fixed_matrices"

# Up to as many groups a convolution is one call for each.
_FEW_GROUPS = 4


@dataclasses.dataclass(frozen=True)
class Norm:
  """Settings that all batch norms of a network share.

  Attributes:
    axis_name: Mesh axis over which the statistics are averaged; None outside
      `shard_map`.
    momentum: Share of the old running statistics that a step keeps: 1 minus
      PyTorch's (0.9 is its default 0.1; EMANet's 3e-4 is 0.9997).
    epsilon: Added to the variance.
    frozen: Normalise by the running statistics in training too, and leave them
      alone (DeepLabV2). Scale and bias are still trained.
  """

  axis_name: str | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  frozen: bool = False


def batch_norm(
    *,
    train: bool,
    norm: Norm,
    dtype: jnp.dtype,
    name: str,
    axis: int = -1,
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
) -> nn.BatchNorm:
  """Returns the batch norm of the package.

  Mean and mean of squares travel together, so that each layer synchronises
  once per forward pass (EncNet's "sync once"). The running variance is the
  biased one; PyTorch stores n / (n - 1) times it.

  Args:
    train: Whether to use (and update) batch statistics.
    norm: What all batch norms of the network share.
    dtype: Dtype of the output; statistics and parameters stay float32.
    name: Name of the submodule.
    axis: The feature axis.
    scale_init: Initialiser of the scale; zeros make a residual block start as
      the identity.
  """
  return nn.BatchNorm(
      use_running_average=norm.frozen or not train,
      axis=axis,
      momentum=norm.momentum,
      epsilon=norm.epsilon,
      dtype=dtype,
      axis_name=norm.axis_name,
      scale_init=scale_init,
      name=name,
  )


def conv_by_groups(
    inputs: jax.Array,
    kernel: jax.Array,
    *args,
    feature_group_count: int = 1,
    **kwargs,
) -> jax.Array:
  """Convolves NHWC like `jax.lax.conv_general_dilated`, a group at a time.

  XLA has fast code for one group and for depthwise convolutions; on a CPU two
  groups in one call took twelve times as long as two calls. Where groups are
  many, as in a depthwise convolution, it is one call.
  """
  groups = feature_group_count
  conv = functools.partial(jax.lax.conv_general_dilated, **kwargs)
  if groups == 1 or groups > _FEW_GROUPS:
    return conv(inputs, kernel, *args, feature_group_count=groups)
  parts = zip(
      jnp.split(inputs, groups, axis=-1),
      jnp.split(kernel, groups, axis=-1),
      strict=True,
  )
  return jnp.concatenate([conv(x, k, *args) for x, k in parts], axis=-1)


class ConvBNAct(nn.Module):
  """Convolution without bias, batch norm, activation.

  Padding is explicit and symmetric, `dilation * (kernel - 1) / 2`, as in
  PyTorch; 'SAME' would pad (0, 1) at stride 2.

  Attributes:
    channels: Output channels.
    kernel_size: Side of the square, odd kernel.
    stride: Stride in both directions.
    dilation: Dilation in both directions.
    groups: Groups of channels convolved apart; as many as there are input
      channels is a depthwise convolution.
    act: Activation, or None.
    norm: Settings of the batch norm.
    dtype: Compute dtype.
  """

  channels: int
  kernel_size: int = 3
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  act: Callable[[jax.Array], jax.Array] | None = nn.relu
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    pad = self.dilation * (self.kernel_size - 1) // 2
    x = nn.Conv(
        self.channels,
        (self.kernel_size, self.kernel_size),
        strides=(self.stride, self.stride),
        kernel_dilation=(self.dilation, self.dilation),
        padding=((pad, pad), (pad, pad)),
        feature_group_count=self.groups,
        conv_general_dilated=conv_by_groups,
        use_bias=False,
        # An output feeds as many units as its group has: without the factor a
        # depthwise kernel starts so small that a batch norm's epsilon shows.
        kernel_init=nn.initializers.variance_scaling(
            2.0 * self.groups, "fan_out", "normal"
        ),
        dtype=self.dtype,
        name="conv",
    )(x)
    x = batch_norm(train=train, norm=self.norm, dtype=self.dtype, name="bn")(x)
    return x if self.act is None else self.act(x)


class SeparableConvBNAct(nn.Module):
  """A 3x3 convolution of each channel, then a 1x1 convolution over channels.

  Batch norm and ReLU follow both, as in mmsegmentation. So does the initial
  scale of the depthwise kernels, for which the fan-out counts all channels:
  small, but batch norm undoes it.

  Attributes:
    channels: Output channels.
    dilation: Dilation of the 3x3 convolution.
    norm: Settings of the batch norms.
    dtype: Compute dtype.
  """

  channels: int
  dilation: int = 1
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, channels]."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    c = x.shape[-1]
    x = ConvBNAct(c, dilation=self.dilation, groups=c, name="depthwise", **kw)(
        x, train=train
    )
    return ConvBNAct(self.channels, 1, name="pointwise", **kw)(x, train=train)


def dropout(
    x: jax.Array, rate: float, *, channel_dropout: bool, train: bool, name: str
) -> jax.Array:
  """Drops elements or, of each image, whole channels of [B, H, W, C]."""
  return nn.Dropout(
      rate,
      broadcast_dims=(1, 2) if channel_dropout else (),
      deterministic=not train,
      name=name,
  )(x)


class Classifier(nn.Module):
  """Dropout and a 1x1 convolution to float32 logits.

  Attributes:
    num_classes: Number of classes.
    dropout_rate: Share of channels (or elements) dropped when training.
    channel_dropout: Drop whole channels (PyTorch's Dropout2d, as mmsegmentation
      and the first PyTorch-Encoding), or single elements (PyTorch-Encoding
      since 2020).
    kernel_init: Initialiser of the kernel. Its default is 1 / sqrt(C) and not
      mmsegmentation's 0.01: a gate gets its gradient through it, and on
      context scenes EncNet's stayed asleep.
  """

  num_classes: int
  dropout_rate: float = 0.1
  channel_dropout: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = dropout(
        x,
        self.dropout_rate,
        channel_dropout=self.channel_dropout,
        train=train,
        name="dropout",
    )
    # float32 whatever the compute dtype: bfloat16 logits cost accuracy. The
    # kernel starts at 1 / sqrt(C), not at mmsegmentation's 0.01: a gate gets
    # its gradient through it, and on context scenes EncNet's stayed asleep.
    return nn.Conv(
        self.num_classes,
        (1, 1),
        padding="VALID",
        kernel_init=self.kernel_init,
        dtype=jnp.float32,
        name="conv",
    )(x)


def attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    scale: float = 1.0,
    chunk_size: int = 512,
) -> jax.Array:
  """Averages values by softmax(scale * queries keys^T), softmax over the keys.

  Queries are taken in chunks of equal size, each recomputed in the backward
  pass, so that of the [B, N, M] attention one chunk exists at a time: at N = M
  = 4096 the gradients need a fifth of the memory.

  Args:
    queries: [B, N, D].
    keys: [B, M, D].
    values: [B, M, C]; C need not be D.
    scale: Factor of the inner products.
    chunk_size: Largest number of queries at a time.

  Returns:
    [B, N, C] in the dtype of the values; inner products, softmax and sums are
    float32.
  """
  f32 = jnp.float32

  def attend(queries):
    logits = jnp.einsum(
        "bnd,bmd->bnm", queries, keys, preferred_element_type=f32
    )
    weights = jax.nn.softmax(scale * logits, axis=-1).astype(values.dtype)
    out = jnp.einsum(
        "bnm,bmc->bnc", weights, values, preferred_element_type=f32
    )
    return out.astype(values.dtype)

  b, n, d = queries.shape
  if n <= chunk_size:
    return attend(queries)
  num_chunks = -(-n // chunk_size)
  size = -(-n // num_chunks)
  padding = num_chunks * size - n
  queries = jnp.pad(queries, ((0, 0), (0, padding), (0, 0)))
  chunks = queries.reshape(b, num_chunks, size, d).swapaxes(0, 1)
  # A loop needs no protection from common subexpression elimination.
  out = jax.lax.map(jax.checkpoint(attend, prevent_cse=False), chunks)
  return out.swapaxes(0, 1).reshape(b, num_chunks * size, -1)[:, :n]


def max_pool(
    x: jax.Array,
    *,
    window: int = 3,
    stride: int = 2,
    padding: int = 1,
    ceil_mode: bool = False,
) -> jax.Array:
  """Max pooling, padded with minus infinity.

  Args:
    x: Maps, [B, H, W, C].
    window: Side of the square window.
    stride: Stride in both directions.
    padding: Padding on all sides, at most half of the window.
    ceil_mode: Round output sizes up instead of down where the stride leaves a
      rest: a last window then reaches over the edge (Caffe's rule; PyTorch's
      option of this name).
  """
  pads = []
  for size in x.shape[1:3]:
    rest = (size + 2 * padding - window) % stride
    over = stride - rest if ceil_mode and rest else 0
    # No window begins beyond the first padding and the map.
    starts_at = size + 2 * padding + over - window
    pads.append((padding, padding + over * (starts_at < size + padding)))
  return nn.max_pool(x, (window,) * 2, strides=(stride,) * 2, padding=pads)


def resize_matrix(
    target: int, source: int, *, align_corners: bool
) -> np.ndarray:
  """Returns the matrix of linear interpolation along one axis.

  Equal to `torch.nn.functional.interpolate(mode="bilinear")` with either
  `align_corners`, without antialiasing. A matrix serves both conventions,
  and is free of gathers, which TPUs are slow at.

  Args:
    target: Output length.
    source: Input length.
    align_corners: Whether the first and last samples of both grids coincide
      (else the half-pixel rule with clamped edges).

  Returns:
    float32 [target, source]; rows sum to 1.
  """
  if align_corners:
    step = (source - 1) / (target - 1) if target > 1 else 0.0
    positions = np.arange(target) * step
  else:
    positions = (np.arange(target) + 0.5) * (source / target) - 0.5
  positions = np.clip(positions, 0, source - 1)
  low = np.floor(positions).astype(np.int64)
  high = np.minimum(low + 1, source - 1)
  weight = positions - low
  matrix = np.zeros((target, source))
  rows = np.arange(target)
  np.add.at(matrix, (rows, low), 1 - weight)
  np.add.at(matrix, (rows, high), weight)
  return matrix.astype(np.float32)


@jax.named_scope(FIXED_MATRICES)
def resize_bilinear(
    x: jax.Array, size: Sequence[int], *, align_corners: bool
) -> jax.Array:
  """Resizes [B, h, w, C] to [B, H, W, C] in float32.

  Args:
    x: Maps, [B, h, w, C].
    size: (H, W).
    align_corners: See `resize_matrix`.
  """
  x = x.astype(jnp.float32)
  if tuple(x.shape[1:3]) == tuple(size):
    return x
  rows = resize_matrix(size[0], x.shape[1], align_corners=align_corners)
  cols = resize_matrix(size[1], x.shape[2], align_corners=align_corners)
  # Full float32 passes: TPUs would multiply in bfloat16 by default.
  kw = dict(precision=jax.lax.Precision.HIGHEST)
  x = jnp.einsum("Hh,bhwc->bHwc", rows, x, **kw)
  return jnp.einsum("Ww,bHwc->bHWc", cols, x, **kw)


def adaptive_pool_matrix(target: int, source: int) -> np.ndarray:
  """Returns the matrix of adaptive average pooling along one axis.

  Equal to `torch.nn.functional.adaptive_avg_pool2d`: bin i is the mean over
  the samples from floor(i * source / target) up to, and without,
  ceil((i + 1) * source / target). Bins overlap where `target` does not divide
  `source`.

  Args:
    target: Output length, the number of bins.
    source: Input length.

  Returns:
    float32 [target, source]; rows sum to 1.
  """
  matrix = np.zeros((target, source), np.float32)
  for i in range(target):
    low = i * source // target
    high = -(-(i + 1) * source // target)
    matrix[i, low:high] = 1.0 / (high - low)
  return matrix


@jax.named_scope(FIXED_MATRICES)
def adaptive_average_pool(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Averages [B, h, w, C] over bins to [B, H, W, C] in float32.

  Args:
    x: Maps, [B, h, w, C].
    size: (H, W).
  """
  rows = adaptive_pool_matrix(size[0], x.shape[1])
  cols = adaptive_pool_matrix(size[1], x.shape[2])
  kw = dict(precision=jax.lax.Precision.HIGHEST)
  x = jnp.einsum("Hh,bhwc->bHwc", rows, x.astype(jnp.float32), **kw)
  return jnp.einsum("Ww,bHwc->bHWc", cols, x, **kw)


def normalize_images(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """Maps uint8 RGB images to float32 (images - mean) / std.

  Args:
    images: [B, H, W, 3], 0 to 255.
    mean: Mean of each channel, in the same unit.
    std: Standard deviation of each channel.
  """
  mean = jnp.asarray(mean, jnp.float32)
  std = jnp.asarray(std, jnp.float32)
  return (images.astype(jnp.float32) - mean) / std
