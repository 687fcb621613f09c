"""Hugging Face transformers: ResNet, as `ResNetModel` and with a classifier.

Its stem is the 7x7 one, with `downsample_in_bottleneck` its stride is that of
`stride_in_1x1`.
"""

from ctxseg_jax.pretrained.sources import naming


def _conv_layer(ours, theirs):
  conv, norm = f"{theirs}.convolution", f"{theirs}.normalization"
  return naming.conv_norm(ours, conv, norm)


_BLOCK = r"stage(\d)_block(\d+)"
_LAYER = "encoder.stages.<1>.layers.<2>"

RESNET = (
    *_conv_layer("stem_conv1", "embedder.embedder"),
    *_conv_layer(rf"{_BLOCK}/conv(\d)", f"{_LAYER}.layer.<3>"),
    *_conv_layer(f"{_BLOCK}/shortcut", f"{_LAYER}.shortcut"),
)

SOURCE = naming.Source(
    backbones={"resnet": RESNET},
    prefixes=("resnet.", ""),
    beside_backbone=((r"classifier\.1\..*", naming.IMAGENET_CLASSIFIER),),
)
