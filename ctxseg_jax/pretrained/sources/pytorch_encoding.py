"""PyTorch-Encoding: its ResNets, EncNet and FCN.

The backbones of its segmentation networks (`resnet50s`, `resnet101s`) have the
stem "deep64" here. It upsamples with `align_corners`.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Part
from ctxseg_jax.pretrained.sources.naming import Rule


def _backbone(model, prefix):
  rules = naming.choose(
      {"resnet": naming.sequential_stem}, model["backbone"], "model.backbone"
  )
  rules = (*rules(model), *naming.resnet_blocks(model))
  return (Part("backbone", prefix, rules),)


FCN = (
    *naming.conv_norm("conv1", "conv5.0", "conv5.1"),
    Rule("classifier/conv", "conv5.4"),
)


def _encnet(section):
  # The first release encoded without a projection before it.
  first = 3 if section.get("project", True) else 0
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


HEADS = {"encnet": _encnet, "fcn": lambda section: FCN}


def _whole(model):
  head = naming.choose(HEADS, model["head"], "model.head")
  parts = [Part("head", "head.", head(model["head"]))]
  left_out = []
  if not model["head"].get("se_loss", True):
    left_out.append((r"head\.encmodule\.selayer\..*", "the SE-loss is off"))
  if model.get("aux_head"):
    aux = naming.choose({"fcn": FCN}, model["aux_head"], "model.aux_head")
    parts.append(Part("aux_head", "auxlayer.", aux))
  else:
    left_out.append((r"auxlayer\..*", naming.NO_AUX_HEAD))
  return tuple(parts), tuple(left_out)


SOURCE = naming.Source(
    backbone=_backbone,
    whole=_whole,
    prefixes=("", "pretrained."),
    left_out=(
        naming.COUNTERS,
        (r"(pretrained\.)?fc\..*", naming.IMAGENET_CLASSIFIER),
    ),
    beside_backbone=((r"(head|auxlayer)\..*", "heads"),),
    whole_conventions=naming.DILATED | {"align_corners": True},
)
