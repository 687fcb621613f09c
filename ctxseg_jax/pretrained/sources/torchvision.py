"""torchvision: ResNet, VGG16, EfficientNet, and the FCN and DeepLabV3 of it.

Its segmentation networks are ResNets at output stride 8 with a 7x7 stem: head
"fcn", or "deeplabv3" with `refine=True`; auxiliary head "fcn" on stage 3.
"""

from ctxseg_jax.pretrained.sources import naming
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
    prefixes=("", "backbone."),
    beside_backbone=(
        (r"fc\..*", naming.IMAGENET_CLASSIFIER),
        (r"features\.8\..*", "the last 1x1 convolution"),
        (r"(aux_)?classifier\..*", "what follows the backbone"),
    ),
    fresh="conv_dilated/.*",
    conventions=_conventions,
)
