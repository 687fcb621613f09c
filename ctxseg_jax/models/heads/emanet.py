"""Expectation-Maximization Attention head (EMANet).

Reference: Li et al., "Expectation-Maximization Attention Networks for Semantic
Segmentation", ICCV 2019, https://arxiv.org/abs/1907.13426, with the authors'
code (XiaLiPKU/EMANet). Where mmsegmentation's EMAHead differs, its form is an
option.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import products
from ctxseg_jax.models.encoding import uniform


def l2_normalize(x: jax.Array) -> jax.Array:
  """Divides vectors [..., C] by their norm."""
  return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-6)


def em_step(
    x: jax.Array, bases: jax.Array, softmax_scale: float = 1.0
) -> tuple[jax.Array, jax.Array]:
  """One E step followed by one M step (paper: A_E, then A_M).

  Args:
    x: Pixel features, float32 [B, N, C].
    bases: Current bases of norm 1, [B, K, C], or [K, C] for all images.
    softmax_scale: See `EMAHead`.

  Returns:
    Responsibilities [B, N, K] (rows sum to 1) and new bases [B, K, C] of norm
    1, float32.
  """
  # Shared bases are not broadcast to the batch: besides the waste, the CPU
  # compiler of jaxlib 0.10.2 gets that product with a softmax behind it wrong.
  product = "bnc,kc->bnk" if bases.ndim == 2 else "bnc,bkc->bnk"
  logits = softmax_scale * products.einsum(product, x, bases)
  responsibilities = jax.nn.softmax(logits, axis=-1)
  mass = jnp.sum(responsibilities, axis=1, keepdims=True)
  weights = responsibilities / (mass + 1e-6)
  bases = products.einsum("bnk,bnc->bkc", weights, x)
  return responsibilities, l2_normalize(bases)


class FrozenConv(nn.Module):
  """A 1x1 convolution that is never trained.

  Kernel and bias are in the collection `"frozen"`, out of the optimiser's
  reach, momentum and weight decay included. The bias is drawn as in PyTorch.
  """

  channels: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., C] to [..., channels]."""

    def frozen(name, init, *shape):
      variable = self.variable(
          "frozen", name, lambda: init(self.make_rng("params"), shape)
      )
      return variable.value.astype(self.dtype)

    width = x.shape[-1]
    bound = width**-0.5
    kernel = frozen("kernel", layers.conv_init, width, self.channels)
    bias = frozen("bias", uniform(-bound, bound), self.channels)
    return jnp.dot(x.astype(self.dtype), kernel) + bias


class EMAttention(nn.Module):
  """Reconstructs features from K bases that a few EM steps fit to the image.

  The bases start from a running average, in the collection `"bases"`, that
  only training updates. As in the code, no gradient enters the EM steps or the
  reconstruction: only the identity branch reaches the backbone, and the
  convolution before the steps keeps its random weights. PyTorch's optimisers
  skip a weight without gradient; here it is a `FrozenConv`, because weight
  decay would otherwise erase it. The fields are `EMAHead`'s.
  """

  num_bases: int = 64
  num_iters: int = 3
  momentum: float = 0.9
  normalize_mean: bool = False
  softmax_scale: float = 1.0
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, H, W, C] to [B, H, W, C]."""
    b, h, w, c = x.shape
    running = self.variable("bases", "mean", self._init_bases, c)
    pixels = FrozenConv(c, self.dtype, name="pre")(x)
    pixels = pixels.reshape(b, h * w, c).astype(jnp.float32)
    pixels, old = jax.lax.stop_gradient((pixels, running.value))
    bases = old
    for _ in range(self.num_iters):
      step = em_step(pixels, bases, self.softmax_scale)
      responsibilities, bases = step
    if train and not self.is_initializing():
      running.value = self._update(old, bases)
    # Paper: A_R, with the responsibilities of the last E step.
    y = products.einsum("bnk,bkc->bnc", responsibilities, bases)
    y = nn.relu(y).reshape(b, h, w, c).astype(self.dtype)
    y = layers.convolve(self, y, c, 1, act=None, name="post", train=train)
    responsibilities = responsibilities.reshape(b, h, w, -1)
    layers.expose(self, responsibilities=responsibilities, before=x, added=y)
    return nn.relu(x + y)

  def _init_bases(self, channels):
    init = nn.initializers.normal((2.0 / self.num_bases) ** 0.5)
    shape = (self.num_bases, channels)
    return l2_normalize(init(self.make_rng("params"), shape))

  def _update(self, old, bases):
    mean = jnp.mean(bases, axis=0)
    if self.norm.axis_name is not None:
      mean = jax.lax.pmean(mean, self.norm.axis_name)
    if self.normalize_mean:
      mean = l2_normalize(mean)
    return self.momentum * old + (1.0 - self.momentum) * mean


class EMAHead(layers.CheckedModule):
  """EM attention between two 3x3 convolutions.

  Attributes:
    channels: Width C of the features the attention works on; the convolution
      behind it has half of it (paper: 512 and 256).
    num_bases: Number of bases K (paper: 64).
    num_iters: EM steps T per forward pass (paper: 3).
    momentum: Share of the old bases kept by the running average (paper: 0.9).
    normalize_mean: Divide the batch mean of the bases by its norm before it
      enters the running average (mmsegmentation).
    softmax_scale: Factor of the inner products in the softmax over the bases
      (paper: lambda, an inverse temperature; code: 1).
    concat_input: Concatenate the input behind the last convolution and
      convolve again (mmsegmentation).
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
    norm: The bases are averaged over its axis; its devices have equal shares.
  """

  num_classes: bounds.PositiveInt
  channels: bounds.PositiveInt = 512
  num_bases: bounds.PositiveInt = 64
  num_iters: bounds.PositiveInt = 3
  momentum: bounds.Fraction = 0.9
  normalize_mean: bool = False
  softmax_scale: bounds.PositiveFloat = 1.0
  concat_input: bool = False
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: layers.Norm = layers.Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: layers.Arrays, *, train: bool) -> layers.Arrays:
    """Maps `"stage4"` to `"logits"`, [B, h, w, num_classes]."""
    inputs = features["stage4"]
    x = layers.convolve(self, inputs, self.channels, name="reduce", train=train)
    x = EMAttention(
        self.num_bases,
        self.num_iters,
        self.momentum,
        self.normalize_mean,
        self.softmax_scale,
        self.norm,
        self.dtype,
        name="em",
    )(x, train=train)
    channels = self.channels // 2
    x = layers.convolve(self, x, channels, name="conv", train=train)
    if self.concat_input:
      x = jnp.concatenate([inputs.astype(x.dtype), x], axis=-1)
      x = layers.convolve(self, x, channels, name="conv_concat", train=train)
    return {"logits": layers.classify(self, x, train=train)}
