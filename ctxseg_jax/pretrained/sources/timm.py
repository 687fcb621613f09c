"""timm: ResNet with the stems of its C, D and S variants, and EfficientNet.

`resnet50` has the stem "7x7", `resnet50c` and `resnet50d` "deep32" (the latter
with `avg_down=True`), `resnet50s` "deep64". The `tf_efficientnet` weights have
the same names and go with `uneven_padding=True`.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources import shapes as shapes_lib
from ctxseg_jax.pretrained.sources.naming import Rule

_BLOCK, _THEIRS = r"group(\d)_block(\d+)", "blocks.<1>.<2>"


def _layer(name, conv, norm, ours=_BLOCK):
  theirs = (f"{_THEIRS}.{conv}", f"{_THEIRS}.{norm}")
  return naming.conv_norm(f"{ours}/{name}", *theirs)


EFFICIENTNET = (
    *naming.conv_norm("stem", "conv_stem", "bn1"),
    # The blocks of the first group do not expand.
    *_layer("depthwise", "conv_dw", "bn1", r"group(1)_block(\d+)"),
    *_layer("project", "conv_pw", "bn2", r"group(1)_block(\d+)"),
    *_layer("expand", "conv_pw", "bn1"),
    *_layer("depthwise", "conv_dw", "bn2"),
    *_layer("project", "conv_pwl", "bn3"),
    Rule(f"{_BLOCK}/se/squeeze", f"{_THEIRS}.se.conv_reduce"),
    Rule(f"{_BLOCK}/se/excite", f"{_THEIRS}.se.conv_expand"),
)


def recognise(shapes):
  """Returns `Source.recognise` of a ResNet."""
  found = shapes_lib.backbone(shapes, ("",))
  return shapes_lib.network_section(found, "conv1", None, None), None


SOURCE = naming.Source(
    backbones={
        "efficientnet": EFFICIENTNET,
        "resnet": naming.resnet_rules,
    },
    beside_backbone=(
        (r"(fc|classifier)\..*", naming.IMAGENET_CLASSIFIER),
        (r"(conv_head|bn2)\..*", "the last 1x1 convolution"),
    ),
    recognise=recognise,
    # The authors' weights, `tf_efficientnet_*`, go with uneven padding.
    conventions=lambda network: naming.RESNET
    | {
        "backbone.epsilon": (
            1e-3 if getattr(network.backbone, "uneven_padding", False) else 1e-5
        )
    },
)
