"""PyTorch-Encoding: its ResNets, EncNet and FCN.

The backbones of its segmentation networks (`resnet50s`, `resnet101s`) have the
stem "deep64" here. It upsamples with `align_corners`.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources import shapes as shapes_lib
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


def _head(shapes, backbone):
  """Returns the section of a head, and its number of classes."""
  width, width_in = shapes.get("conv5.0.weight", (None, None))[:2]
  section = dict(channels=width, channel_dropout=False)
  codewords = [
      (i, shapes[name])
      for i in (0, 3)
      if (name := f"encmodule.encoding.{i}.codewords") in shapes
  ]
  if codewords and "conv6.1.weight" in shapes:
    first, (number, _) = codewords[0]
    section |= dict(
        name="encnet",
        num_codewords=number,
        project=first == 3,
        lateral="connect.0.0.weight" in shapes,
        se_loss="encmodule.selayer.weight" in shapes,
    )
    return section, shapes["conv6.1.weight"][0]
  if "conv5.4.weight" in shapes:
    stage = shapes_lib.stage(backbone, width_in)
    return section | dict(name="fcn", stage=stage), shapes["conv5.4.weight"][0]
  return None, None


def recognise(shapes):
  """Returns `Source.recognise` of a ResNet, with EncNet or FCN."""
  backbone = shapes_lib.backbone(shapes, _PREFIXES)
  head, classes = _head(shapes_lib.under(shapes, "head."), backbone)
  aux, _ = _head(shapes_lib.under(shapes, "auxlayer."), backbone)
  return shapes_lib.network_section(backbone, "conv1", head, aux), classes


_PREFIXES = ("", "pretrained.")

SOURCE = naming.Source(
    backbones={"resnet": naming.resnet_rules},
    heads={"encnet": _encnet, "fcn": FCN},
    aux_heads={"fcn": FCN},
    head_prefix="head.",
    aux_prefix="auxlayer.",
    prefixes=_PREFIXES,
    recognise=recognise,
    left_out=(
        naming.COUNTERS,
        (r"head\.encmodule\.selayer\..*", "the SE-loss is off"),
        (r"(pretrained\.)?fc\..*", naming.IMAGENET_CLASSIFIER),
    ),
    beside_backbone=((r"(head|auxlayer)\..*", "heads"),),
    whole_conventions=naming.DILATED | {"align_corners": True},
)
