"""torchvision: ResNet, VGG16, EfficientNet, and the FCN and DeepLabV3 of it.

Its segmentation networks are ResNets at output stride 8 with a 7x7 stem: head
"fcn", or "deeplabv3" with `refine=True`; auxiliary head "fcn" on stage 3.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources import shapes as shapes_lib
from ctxseg_jax.pretrained.sources.naming import Rule

# Positions in `features` of the convolutions of each stage.
_POSITIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
VGG16 = tuple(
    Rule(f"conv{stage}_{i}", f"features.{position}")
    for stage, positions in enumerate(_POSITIONS, start=1)
    for i, position in enumerate(positions, start=1)
)
# The dense layers of VGG16 are the first of a fully convolutional head.
VGG16_DENSE = (
    Rule("(host/)?fc6", "classifier.0"),
    Rule("(host/)?fc7", "classifier.3"),
)


def _efficientnet():
  rules = [*naming.conv_norm("stem", "features.0.0", "features.0.1")]
  layers = ("depthwise", "se", "project")
  # The blocks of the first group do not expand.
  for group, order in (("1", layers), (r"\d", ("expand", *layers))):
    for i, layer in enumerate(order):
      ours = rf"group({group})_block(\d+)/{layer}"
      theirs = rf"features.\1.<2>.block.{i}"
      rules += (
          *naming.conv_norm(ours, f"{theirs}.0", f"{theirs}.1"),
          Rule(f"{ours}/squeeze", f"{theirs}.fc1"),
          Rule(f"{ours}/excite", f"{theirs}.fc2"),
      )
  return tuple(rules)


FCN = (*naming.conv_norm("conv1", "0", "1"), Rule("classifier/conv", "4"))

DEEPLABV3 = (
    *naming.conv_norm("aspp/conv", "0.convs.0.0", "0.convs.0.1"),
    *naming.conv_norm(r"aspp/atrous(\d)", r"0.convs.\1.0", r"0.convs.\1.1"),
    # Theirs is the last branch, ours the first of what is projected.
    *naming.conv_norm("aspp/image_pool", "0.convs.4.1", "0.convs.4.2"),
    Rule("aspp/project/conv", "0.project.0", "mean_last"),
    Rule("aspp/project/bn", "0.project.1"),
    *naming.conv_norm("refine", "1", "2"),
    Rule("classifier/conv", "4"),
)


def _conventions(network):
  # The large EfficientNets have the epsilon of the authors, others PyTorch's.
  is_large = getattr(network.backbone, "variant", None) in ("b5", "b6", "b7")
  return naming.RESNET | {"backbone.epsilon": 1e-3 if is_large else 1e-5}


def _fcn(shapes, backbone):
  if len(shapes.get("0.weight", ())) != 4 or "4.weight" not in shapes:
    return None
  width, width_in = shapes["0.weight"][:2]
  stage = shapes_lib.stage(backbone, width_in)
  return dict(name="fcn", stage=stage, channels=width, channel_dropout=False)


def recognise(shapes):
  """Returns `Source.recognise` of a ResNet, with FCN or DeepLabV3."""
  backbone = shapes_lib.backbone(shapes, _PREFIXES)
  head = shapes_lib.under(shapes, "classifier.")
  aux = shapes_lib.under(shapes, "aux_classifier.")
  if "0.convs.0.0.weight" in head:
    width = head["0.convs.0.0.weight"][0]
    section = dict(name="deeplabv3", channels=width, refine=True)
  else:
    section = _fcn(head, backbone)
  model = shapes_lib.network_section(
      backbone, "conv1", section, _fcn(aux, backbone)
  )
  return model, head["4.weight"][0] if section else None


_PREFIXES = ("", "backbone.")

SOURCE = naming.Source(
    backbones={
        "efficientnet": _efficientnet(),
        "resnet": naming.resnet_rules,
        "vgg16": VGG16,
    },
    starts={"vgg16": VGG16_DENSE},
    heads={"deeplabv3": DEEPLABV3, "fcn": FCN},
    aux_heads={"fcn": FCN},
    head_prefix="classifier.",
    aux_prefix="aux_classifier.",
    prefixes=_PREFIXES,
    recognise=recognise,
    beside_backbone=(
        (r"fc\..*", naming.IMAGENET_CLASSIFIER),
        (r"features\.8\..*", "the last 1x1 convolution"),
        (r"(aux_)?classifier\..*", "what follows the backbone"),
    ),
    fresh="conv_dilated/.*",
    conventions=_conventions,
)
