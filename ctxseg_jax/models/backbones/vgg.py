"""VGG16 in the forms of three segmentation networks.

References: Simonyan and Zisserman, "Very Deep Convolutional Networks for
Large-Scale Image Recognition", ICLR 2015, https://arxiv.org/abs/1409.1556; the
forms as in the papers named at `FORMS`.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctxseg_jax import bounds
from ctxseg_jax.models import layers
from ctxseg_jax.models import max_pooling

# Width, as a multiple of the first block's, and convolutions of each block.
BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))

# What each block is called once pooled: by the strides it shares with ResNets.
NAMES = ("stem", "stage1", "stage2", "stage3", "stage4")


@dataclasses.dataclass(frozen=True)
class Form:
  """The changes of a segmentation network to VGG16."""

  image_padding: int = 1  # Of the first convolution.
  # Of max pooling; see `max_pooling.max_pool`.
  pool_window: int = 2
  pool_padding: int = 0
  ceil_mode: bool = True
  pool_strides: tuple[int, ...] = (2, 2, 2, 2, 2)
  last_dilation: int = 1  # Of the last block's convolutions.
  # By a convolution of dilation 2, without ReLU.
  replaces_last_pool: bool = False


FORMS = {
    # Long et al., "Fully Convolutional Networks for Semantic Segmentation",
    # CVPR 2015. The padding lets small images through the 7x7 of the head,
    # whose crops undo it.
    "fcn": Form(image_padding=100),
    # Wang et al., "Neuron-level Selective Context Aggregation for Scene
    # Segmentation", https://arxiv.org/abs/1711.08278; pooling as torchvision's.
    "dilated": Form(ceil_mode=False, replaces_last_pool=True),
    # Chen et al., "DeepLab", https://arxiv.org/abs/1606.00915 (DeepLabV2).
    "deeplab": Form(
        pool_window=3,
        pool_padding=1,
        pool_strides=(2, 2, 2, 1, 1),
        last_dilation=2,
    ),
}


class VGG16(layers.CheckedModule):
  """Thirteen 3x3 convolutions with bias and ReLU, in five blocks.

  Without batch norm, learning rates that suit ResNets are too high.

  Attributes:
    form: "fcn" (output stride 32), "dilated" (16) or "deeplab" (8); see
      `FORMS`.
    channels: Width of the first block; the others have 2, 4, 8 and 8 times it
      (paper: 64).
  """

  form: Literal["fcn", "dilated", "deeplab"] = "dilated"
  channels: bounds.PositiveInt = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> layers.Arrays:
    """Maps images [B, H, W, 3] to the five blocks after pooling.

    `stem` is pool1, `stage1` ... `stage4` pool2 to pool5 (or the convolution in
    its place), at strides 2, 4, 8, then 16 and 32 ("fcn"), 16 and 16
    ("dilated") or 8 and 8 ("deeplab"). The form "fcn" adds the `image`, to
    whose size the head crops its padded maps.
    """
    del train
    form = FORMS[self.form]
    x = images.astype(self.dtype)
    features = {"image": images} if form.image_padding > 1 else {}
    for block, (multiple, num_convs) in enumerate(BLOCKS, start=1):
      last = block == len(BLOCKS)
      width = multiple * self.channels
      for i in range(1, num_convs + 1):
        name = f"conv{block}_{i}"
        kw = dict(dilation=form.last_dilation if last else 1, dtype=self.dtype)
        padding = form.image_padding if name == "conv1_1" else None
        x = nn.relu(layers.conv(width, padding=padding, name=name, **kw)(x))
      if last and form.replaces_last_pool:
        kw = dict(dilation=2, dtype=self.dtype)
        x = layers.conv(width, name="conv_dilated", **kw)(x)
      else:
        x = max_pooling.max_pool(
            x,
            window=form.pool_window,
            stride=form.pool_strides[block - 1],
            padding=form.pool_padding,
            ceil_mode=form.ceil_mode,
        )
      features[NAMES[block - 1]] = x
    return features
