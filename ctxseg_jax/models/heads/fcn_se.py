"""Fully convolutional head with a squeeze-and-excitation block (FCN-SE).

The baseline of Zhong et al., "Squeeze-and-Attention Networks for Semantic
Segmentation", CVPR 2020, https://arxiv.org/abs/1909.03402, after Hu et al.,
"Squeeze-and-Excitation Networks", CVPR 2018. The paper does not say where the
block stands; here it is between the convolution of an FCN head and its
classifier.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax.models.layers import Classifier
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm


class FCNSEHead(nn.Module):
  """An FCN head whose features are gated by their mean over the image.

  Attributes:
    num_classes: Number of classes.
    channels: Width C; None is a quarter of stage 4's.
    squeeze_channels: Width of the layer between the two that make the gate
      (paper: 4).
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms.
    dtype: Compute dtype; mean, gate and logits are float32.
  """

  num_classes: int
  channels: int | None = None
  squeeze_channels: int = 4
  dropout_rate: float = 0.1
  channel_dropout: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self, features: dict[str, jax.Array], *, train: bool
  ) -> dict[str, jax.Array]:
    """Maps backbone features to class scores.

    Args:
      features: Backbone outputs; only `"stage4"`, [B, h, w, C4], is read.
      train: Whether batch norm uses batch statistics, and dropout drops.

    Returns:
      `"logits"`, [B, h, w, num_classes].
    """
    kw = dict(norm=self.norm, dtype=self.dtype)
    x = features["stage4"]
    channels = self.channels or x.shape[-1] // 4
    x = ConvBNAct(channels, name="reduce", **kw)(x, train=train)
    # Paper: Eq. (3).
    gate = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    gate = nn.relu(nn.Dense(self.squeeze_channels, name="squeeze")(gate))
    gate = nn.sigmoid(nn.Dense(channels, name="excite")(gate))
    residual = ConvBNAct(channels, name="conv", **kw)(x, train=train)
    # Paper: Eq. (2).
    x = gate.astype(self.dtype)[:, None, None] * x + residual
    logits = Classifier(
        self.num_classes,
        self.dropout_rate,
        self.channel_dropout,
        name="classifier",
    )(x, train=train)
    return {"logits": logits}
