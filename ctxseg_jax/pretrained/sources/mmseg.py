"""mmsegmentation and other projects of OpenMMLab.

Whole segmentors (`backbone.*`, `decode_head.*`, `auxiliary_head.*`) and the
backbones that they start from (`open-mmlab://resnet50_v1c`). A file tells
neither dilation nor `align_corners`: those are the config's.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Rule


def _conv_module(ours, theirs):
  return naming.conv_norm(ours, rf"{theirs}.conv", rf"{theirs}.bn")


def _minus_one(template):
  return lambda m: template.format(int(m[1]) - 1)


def _zero_based(ours, theirs):
  """Returns the rules of numbered modules, which count from 0 there."""
  return (
      Rule(rf"{ours}(\d+)/conv", _minus_one(f"{theirs}.{{}}.conv")),
      Rule(rf"{ours}(\d+)/bn", _minus_one(f"{theirs}.{{}}.bn")),
  )


CLASSIFIER = Rule("classifier/conv", "conv_seg")
CONCAT = _conv_module("conv_concat", "conv_cat")
CONVS = _zero_based("conv", "convs")

FCN = (*CONVS, *CONCAT, CLASSIFIER)

PROJECTIONS = (
    Rule("non_local/query", "nl_block.theta.conv"),
    Rule("non_local/key", "nl_block.phi.conv"),
    Rule("non_local/value", "nl_block.g.conv"),
    Rule("non_local/out", "nl_block.conv_out.conv"),
    Rule("non_local/bn", "nl_block.conv_out.bn"),
)

ASPP = (
    *_conv_module("aspp/image_pool", "image_pool.1"),
    *_conv_module("aspp/conv", "aspp_modules.0"),
    *_conv_module("aspp/project", "bottleneck"),
    CLASSIFIER,
)

ENC = (
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
)

EMA = (
    *_conv_module("reduce", "ema_in_conv"),
    Rule("em/mean", "ema_module.bases", "bases"),
    Rule("em/pre", "ema_mid_conv.conv"),
    *_conv_module("em/post", "ema_out_conv"),
    *_conv_module("conv", "bottleneck"),
    *CONCAT,
    CLASSIFIER,
)

DA = (
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
)


def _psp(head):
  bins = [str(n) for n in head.bins]

  def name(module):
    return lambda m: f"psp_modules.{bins.index(m[1])}.1.{module}"

  return (
      Rule(r"pyramid/bin(\d+)/conv", name("conv")),
      Rule(r"pyramid/bin(\d+)/bn", name("bn")),
      *_conv_module("fusion", "bottleneck"),
      CLASSIFIER,
  )


def _aspp(head):
  del head
  # The first of their modules is the 1x1 convolution.
  return (*ASPP, *_conv_module(r"aspp/atrous(\d+)", r"aspp_modules.\1"))


def _aspp_plus(head):
  if not head.separable:
    return (
        *_aspp(head),
        *_conv_module("low", "c1_bottleneck"),
        *_zero_based("decoder", "sep_bottleneck"),
    )
  rules = [*ASPP, *_conv_module("low", "c1_bottleneck")]
  for step in ("depthwise", "pointwise"):
    rules += _conv_module(
        rf"aspp/atrous(\d+)/{step}", rf"aspp_modules.\1.{step}_conv"
    )
    for module in ("conv", "bn"):
      rules.append(
          Rule(
              rf"decoder(\d)/{step}/{module}",
              _minus_one(f"sep_bottleneck.{{}}.{step}_conv.{module}"),
          )
      )
  return tuple(rules)


HEADS = {
    "danet": lambda head: DA,
    "deeplabv3": _aspp,
    "deeplabv3plus": _aspp_plus,
    "emanet": lambda head: EMA,
    "encnet": lambda head: ENC,
    "fcn": lambda head: FCN,
    "nonlocal": lambda head: (*FCN, *PROJECTIONS),
    "pspnet": _psp,
}


def _resnet(backbone):
  if backbone.stem == "7x7":
    stem = naming.conv_norm("stem_conv1", "conv1", "bn1")
  else:
    stem = sum(
        (
            naming.conv_norm(
                f"stem_conv{i + 1}", f"stem.{3 * i}", f"stem.{3 * i + 1}"
            )
            for i in range(3)
        ),
        (),
    )
  return (*stem, *naming.resnet_blocks(backbone))


SOURCE = naming.Source(
    backbone=naming.backbones({"resnet": _resnet}),
    heads=naming.heads(
        HEADS,
        "decode_head.",
        "auxiliary_head.",
        switched={
            "se_loss": (r"se_layer\..*", "the SE-loss is off"),
            "supervise_branches": (
                r"[pc]am_conv_seg\..*",
                "the branches are not supervised",
            ),
        },
    ),
    prefixes=("", "backbone."),
    beside_backbone=(
        (r"((backbone|head)\.)?fc\..*", naming.IMAGENET_CLASSIFIER),
        (r"(decode_head|auxiliary_head)\..*", "heads"),
    ),
    whole_conventions=naming.DILATED,
)
