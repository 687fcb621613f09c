"""Fully convolutional head, the baseline of every context head.

Reference: Long et al., "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, in the two forms that dilated ResNets carry: the
FCNHead of PyTorch-Encoding (one convolution, the default here) and that of
mmsegmentation (two convolutions, their input concatenated, one more).
"""

import flax.linen as nn
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models.layers import CheckedModule
from ctxseg_jax.models.layers import classify
from ctxseg_jax.models.layers import ConvBNAct
from ctxseg_jax.models.layers import Norm
from ctxseg_jax.models.layers import Outputs
from ctxseg_jax.models.layers import Stage


class FCNHead(CheckedModule):
  """3x3 convolutions and a classifier; also the usual auxiliary head.

  Attributes:
    num_classes: Number of classes.
    stage: The feature map to read.
    channels: Width C; None is a quarter of the input's (PyTorch-Encoding).
    num_convs: Number of 3x3 convolutions.
    concat_input: Concatenate the input behind the last one and convolve again
      (mmsegmentation).
    dilation: Dilation of the convolutions (6 in mmsegmentation's FCN-D6).
    dropout_rate: Dropout before the classifier.
    channel_dropout: Drop channels instead of elements.
    norm: Settings of the batch norms.
    dtype: Compute dtype; logits are float32.
  """

  num_classes: bounds.PositiveInt
  stage: Stage = "stage4"
  channels: bounds.PositiveInt | None = None
  num_convs: bounds.NonNegativeInt = 1
  concat_input: bool = False
  dilation: bounds.PositiveInt = 1
  dropout_rate: bounds.DropoutRate = 0.1
  channel_dropout: bool = True
  norm: Norm = Norm()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: Outputs, *, train: bool) -> Outputs:
    """Maps a feature map to `"logits"`, [B, h, w, num_classes]."""
    kw = dict(norm=self.norm, dtype=self.dtype)
    inputs = features[self.stage]
    channels = self.channels or inputs.shape[-1] // 4
    x = inputs
    for i in range(1, self.num_convs + 1):
      x = ConvBNAct(channels, dilation=self.dilation, name=f"conv{i}", **kw)(
          x, train=train
      )
    if self.concat_input:
      x = jnp.concatenate([inputs, x], axis=-1)
      x = ConvBNAct(channels, name="conv_concat", **kw)(x, train=train)
    return {"logits": classify(self, x, train=train)}
