"""torchvision: ResNet, VGG16, EfficientNet, and the FCN and DeepLabV3 of it.

Its segmentation networks are ResNets at output stride 8 with a 7x7 stem: head
"fcn", or "deeplabv3" with `refine=True`; auxiliary head "fcn" on stage 3.
"""

from ctxseg_jax.models.backbones import vgg
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Part
from ctxseg_jax.pretrained.sources.naming import Rule

# Of the convolutions among `features`, by our name.
VGG16_LAYERS = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}

# Variants that were trained with the epsilon of the authors; the smaller ones
# have PyTorch's.
AUTHORS_EPSILON = ("b5", "b6", "b7")


# The dense layers of VGG16 are the first of a fully convolutional head.
VGG16_DENSE = (
    Rule("(host/)?fc6", "classifier.0"),
    Rule("(host/)?fc7", "classifier.3"),
)


def _resnet(backbone):
  stem = naming.conv_norm("stem_conv1", "conv1", "bn1")
  return (*stem, *naming.resnet_blocks(backbone))


def _vgg16(backbone):
  del backbone
  return tuple(Rule(ours, f"features.{i}") for ours, i in VGG16_LAYERS.items())


# In a block, by position: the convolutions and the squeeze-and-excitation. The
# blocks of the first group do not expand.
_FIRST_GROUP = ("depthwise", "se", "project")
_OTHER_GROUPS = ("expand", *_FIRST_GROUP)


def _efficientnet(backbone):
  del backbone

  def name(rest):
    def expand(m):
      group, block, layer = int(m[1]), int(m[2]), m[3]
      order = _FIRST_GROUP if group == 1 else _OTHER_GROUPS
      index = order.index(layer)
      return f"features.{group}.{block - 1}.block.{index}.{rest}"

    return expand

  block = r"group(\d)_block(\d+)"
  layer = "(expand|depthwise|project)"
  return (
      *naming.conv_norm("stem", "features.0.0", "features.0.1"),
      Rule(f"{block}/{layer}/conv", name("0")),
      Rule(f"{block}/{layer}/bn", name("1")),
      Rule(f"{block}/(se)/squeeze", name("fc1")),
      Rule(f"{block}/(se)/excite", name("fc2")),
  )


BACKBONES = {
    "efficientnet": _efficientnet,
    "resnet": _resnet,
    "vgg16": _vgg16,
}


def _backbone(backbone, prefix):
  parts = naming.backbones(BACKBONES)(backbone, prefix)
  if isinstance(backbone, vgg.VGG16):
    parts = (*parts, Part("head", prefix, VGG16_DENSE))
  return parts


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

HEADS = {"deeplabv3": lambda head: DEEPLABV3, "fcn": lambda head: FCN}


def _conventions(network):
  variant = getattr(network.backbone, "variant", None)
  epsilon = 1e-3 if variant in AUTHORS_EPSILON else 1e-5
  return naming.RESNET | {"backbone.epsilon": epsilon}


SOURCE = naming.Source(
    backbone=_backbone,
    heads=naming.heads(
        HEADS, "classifier.", "aux_classifier.", aux_table={"fcn": HEADS["fcn"]}
    ),
    prefixes=("", "backbone."),
    beside_backbone=(
        (r"fc\..*", naming.IMAGENET_CLASSIFIER),
        (r"features\.8\..*", "the last 1x1 convolution"),
        (r"(aux_)?classifier\..*", "what follows the backbone"),
    ),
    fresh="conv_dilated/.*",
    conventions=_conventions,
    whole_conventions=naming.DILATED,
)
