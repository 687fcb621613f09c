"""mmsegmentation and other projects of OpenMMLab.

Whole segmentors (`backbone.*`, `decode_head.*`, `auxiliary_head.*`) and the
backbones that they start from (`open-mmlab://resnet50_v1c`).
"""

import functools

from ctxseg_jax.pretrained.sources import mmseg_shapes
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Rule


def _conv_module(ours, theirs):
  return naming.conv_norm(ours, rf"{theirs}.conv", rf"{theirs}.bn")


CLASSIFIER = Rule("classifier/conv", "conv_seg")
CONCAT = _conv_module("conv_concat", "conv_cat")
FCN = (*_conv_module(r"conv(\d+)", "convs.<1>"), *CONCAT, CLASSIFIER)
ASPP = (
    *_conv_module("aspp/image_pool", "image_pool.1"),
    # The first of their modules is the 1x1 convolution.
    *_conv_module("aspp/conv", "aspp_modules.0"),
    *_conv_module("aspp/project", "bottleneck"),
    CLASSIFIER,
)


def _deeplabv3plus(head):
  rules = [*ASPP, *_conv_module("low", "c1_bottleneck")]
  steps = [("", "")]
  if head.separable:
    steps = [(f"/{x}", f".{x}_conv") for x in ("depthwise", "pointwise")]
  for ours, theirs in steps:
    rules += (
        *_conv_module(rf"aspp/atrous(\d+){ours}", rf"aspp_modules.\1{theirs}"),
        *_conv_module(rf"decoder(\d+){ours}", f"sep_bottleneck.<1>{theirs}"),
    )
  return tuple(rules)


def _pspnet(head):
  rules = [*_conv_module("fusion", "bottleneck"), CLASSIFIER]
  for i, size in enumerate(head.bins):
    rules += _conv_module(f"pyramid/bin{size}", f"psp_modules.{i}.1")
  return tuple(rules)


HEADS = {
    "danet": (
        *_conv_module("position_reduce", "pam_in_conv"),
        *_conv_module("position_conv", "pam_out_conv"),
        *_conv_module("channel_reduce", "cam_in_conv"),
        *_conv_module("channel_conv", "cam_out_conv"),
        Rule("position_attention/gamma", "pam.gamma.scale"),
        Rule("channel_attention/gamma", "cam.gamma.scale"),
        Rule("position_attention/(query|key|value)", r"pam.\1_project"),
        Rule("position_classifier/conv", "pam_conv_seg"),
        Rule("channel_classifier/conv", "cam_conv_seg"),
        CLASSIFIER,
    ),
    "deeplabv3": (
        *ASPP,
        *_conv_module(r"aspp/atrous(\d+)", r"aspp_modules.\1"),
    ),
    "deeplabv3plus": _deeplabv3plus,
    "emanet": (
        *_conv_module("reduce", "ema_in_conv"),
        Rule("em/mean", "ema_module.bases", "bases"),
        Rule("em/pre", "ema_mid_conv.conv"),
        *_conv_module("em/post", "ema_out_conv"),
        *_conv_module("conv", "bottleneck"),
        *CONCAT,
        CLASSIFIER,
    ),
    "encnet": (
        *_conv_module("reduce", "bottleneck"),
        *_conv_module("lateral_stage2", "lateral_convs.0"),
        *_conv_module("lateral_stage3", "lateral_convs.1"),
        *_conv_module("fusion", "fusion"),
        *_conv_module("encoding/project", "enc_module.encoding_project"),
        Rule("encoding/(codewords|scale)", r"enc_module.encoding.0.\1"),
        Rule("encoding/bn", "enc_module.encoding.1"),
        Rule("gate", "enc_module.fc.0"),
        Rule("se", "se_layer"),
        CLASSIFIER,
    ),
    "fcn": FCN,
    "nonlocal": (
        *FCN,
        Rule("non_local/query", "nl_block.theta.conv"),
        Rule("non_local/key", "nl_block.phi.conv"),
        Rule("non_local/value", "nl_block.g.conv"),
        Rule("non_local/out", "nl_block.conv_out.conv"),
        Rule("non_local/bn", "nl_block.conv_out.bn"),
    ),
    "pspnet": _pspnet,
}

RESNET = functools.partial(naming.resnet_rules, stem="stem", stem_norm="stem.7")

SOURCE = naming.Source(
    backbones={"resnet": RESNET},
    heads=HEADS,
    aux_heads=HEADS,
    head_prefix="decode_head.",
    aux_prefix="auxiliary_head.",
    prefixes=mmseg_shapes.PREFIXES,
    recognise=mmseg_shapes.recognise,
    left_out=(
        naming.COUNTERS,
        (r"decode_head\.se_layer\..*", "the SE-loss is off"),
        (r"decode_head\.[pc]am_conv_seg\..*", "unsupervised branches"),
    ),
    beside_backbone=(
        (r"((backbone|head)\.)?fc\..*", naming.IMAGENET_CLASSIFIER),
        (r"(decode_head|auxiliary_head)\..*", "heads"),
    ),
)
