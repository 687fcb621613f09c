"""PyTorch-Encoding: its ResNets, EncNet and FCN.

The backbones of its segmentation networks (`resnet50s`, `resnet101s`) have the
stem "deep64" here. It upsamples with `align_corners`.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Rule

FCN = (
    *naming.conv_norm("conv1", "conv5.0", "conv5.1"),
    Rule("classifier/conv", "conv5.4"),
)


def _encnet(head):
  # The first release encoded without a projection before it.
  first = 3 if head.project else 0
  encoding = "encmodule.encoding"
  return (
      *naming.conv_norm("reduce", "conv5.0", "conv5.1"),
      *naming.conv_norm("lateral_stage2", "connect.0.0", "connect.0.1"),
      *naming.conv_norm("lateral_stage3", "connect.1.0", "connect.1.1"),
      *naming.conv_norm("fusion", "fusion.0", "fusion.1"),
      *naming.conv_norm("encoding/project", f"{encoding}.0", f"{encoding}.1"),
      Rule("encoding/(codewords|scale)", rf"{encoding}.{first}.\1"),
      Rule("encoding/bn", f"{encoding}.{first + 1}"),
      Rule("gate", "encmodule.fc.0"),
      Rule("se", "encmodule.selayer"),
      Rule("classifier/conv", "conv6.1"),
  )


SOURCE = naming.Source(
    backbones={"resnet": naming.resnet_rules},
    heads={"encnet": _encnet, "fcn": FCN},
    aux_heads={"fcn": FCN},
    head_prefix="head.",
    aux_prefix="auxlayer.",
    prefixes=("", "pretrained."),
    left_out=(
        naming.COUNTERS,
        (r"head\.encmodule\.selayer\..*", "the SE-loss is off"),
        (r"(pretrained\.)?fc\..*", naming.IMAGENET_CLASSIFIER),
    ),
    beside_backbone=((r"(head|auxlayer)\..*", "heads"),),
    whole_conventions=naming.DILATED | {"align_corners": True},
)
