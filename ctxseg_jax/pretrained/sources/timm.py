"""timm: ResNet with the stems of its C, D and S variants, and EfficientNet.

`resnet50` has the stem "7x7", `resnet50c` and `resnet50d` "deep32" (the latter
with `avg_down=True`), `resnet50s` "deep64". The `tf_efficientnet` weights pad
their images unevenly, which our EfficientNet does not: they are those of
another function, though the names are the same.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Rule

# In a block, the convolutions in their order, each with the batch norm of its
# position. The blocks of the first group do not expand.
_FIRST_GROUP = {"depthwise": "conv_dw", "project": "conv_pw"}
_OTHER_GROUPS = {
    "expand": "conv_pw",
    "depthwise": "conv_dw",
    "project": "conv_pwl",
}


def _efficientnet(backbone):
  del backbone

  def block(m):
    return f"blocks.{int(m[1]) - 1}.{int(m[2]) - 1}"

  def conv(m):
    convs = _FIRST_GROUP if m[1] == "1" else _OTHER_GROUPS
    return f"{block(m)}.{convs[m[3]]}"

  def norm(m):
    convs = _FIRST_GROUP if m[1] == "1" else _OTHER_GROUPS
    return f"{block(m)}.bn{list(convs).index(m[3]) + 1}"

  prefix = r"group(\d)_block(\d+)"
  layer = "(expand|depthwise|project)"
  return (
      *naming.conv_norm("stem", "conv_stem", "bn1"),
      Rule(f"{prefix}/{layer}/conv", conv),
      Rule(f"{prefix}/{layer}/bn", norm),
      Rule(f"{prefix}/se/squeeze", lambda m: f"{block(m)}.se.conv_reduce"),
      Rule(f"{prefix}/se/excite", lambda m: f"{block(m)}.se.conv_expand"),
  )


def _conventions(network):
  del network
  # Of its own weights; those with `tf_` before the name have 1e-3.
  return naming.RESNET | {"backbone.epsilon": 1e-5}


SOURCE = naming.Source(
    backbone=naming.backbones(
        {"efficientnet": _efficientnet, "resnet": naming.sequential_resnet}
    ),
    beside_backbone=(
        (r"(fc|classifier)\..*", naming.IMAGENET_CLASSIFIER),
        (r"(conv_head|bn2)\..*", "the last 1x1 convolution"),
    ),
    conventions=_conventions,
)
