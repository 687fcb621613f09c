"""The networks of mmsegmentation by the names and shapes of their tensors."""

from typing import Any

from ctxseg_jax.pretrained.sources import shapes as shapes_lib
from ctxseg_jax.pretrained.sources.shapes import Section
from ctxseg_jax.pretrained.sources.shapes import Shapes

PREFIXES = ("", "backbone.")

# Of ASPP; the published configs have no dropout but the classifier's.
_DROPOUT = dict(aspp_dropout_rate=0.0, dropout_rate=0.1, channel_dropout=True)


def recognise(shapes: Shapes) -> tuple[Section | None, int | None]:
  """Returns `Source.recognise` of a ResNet, with one of the eight heads."""
  backbone = shapes_lib.backbone(shapes, PREFIXES)
  head, aux = (
      head_section(shapes_lib.under(shapes, f"{x}_head."), backbone)
      for x in ("decode", "auxiliary")
  )
  num_classes = None
  if head is not None:
    num_classes = shapes["decode_head.conv_seg.weight"][0]
  return shapes_lib.network_section(backbone, "stem", head, aux), num_classes


def head_section(shapes: Shapes, backbone: Shapes) -> Section | None:
  """Returns the section of a head; None if it is none of the eight.

  `shapes` are its own, without prefix; `backbone` are those of the ResNet.
  """
  if "conv_seg.weight" not in shapes:
    return None

  def width(name: str, axis: int = 0) -> int | None:
    return shapes.get(f"{name}.weight", (None,) * 4)[axis]

  convs: dict[str, Any] = dict(channels=width("convs.0.conv"))
  if "pam.gamma.scale" in shapes or "pam.gamma" in shapes:
    return dict(
        name="danet",
        channels=width("pam_in_conv.conv"),
        query_channels=width("pam.query_project"),
        supervise_branches="pam_conv_seg.weight" in shapes,
    )
  if "ema_module.bases" in shapes:
    return dict(
        name="emanet",
        channels=width("ema_in_conv.conv"),
        num_bases=shapes["ema_module.bases"][-1],
        concat_input="conv_cat.conv.weight" in shapes,
        normalize_mean=True,
    )
  if codewords := shapes.get("enc_module.encoding.0.codewords"):
    return dict(
        name="encnet",
        channels=width("bottleneck.conv"),
        num_codewords=codewords[0],
        lateral="lateral_convs.0.conv.weight" in shapes,
        se_loss="se_layer.weight" in shapes,
    )
  if "nl_block.g.conv.weight" in shapes:
    inner = width("nl_block.g.conv")
    return dict(name="nonlocal", reduction=convs["channels"] // inner, **convs)
  if branch := width("psp_modules.0.1.conv"):
    return dict(
        name="pspnet",
        channels=width("bottleneck.conv"),
        branch_channels=branch,
    )
  if "aspp_modules.0.conv.weight" in shapes:
    section = dict(
        name="deeplabv3",
        channels=width("bottleneck.conv"),
        project_kernel_size=width("bottleneck.conv", 2),
        **_DROPOUT,
    )
    if low := width("c1_bottleneck.conv"):
      depthwise = "aspp_modules.1.depthwise_conv.conv.weight"
      section |= dict(
          name="deeplabv3plus",
          low_channels=low,
          separable=depthwise in shapes,
          decoder_dropout_rate=0.0,
      )
    return section
  if convs["channels"] is not None:
    return dict(
        name="fcn",
        stage=shapes_lib.stage(backbone, width("convs.0.conv", 1)) or "stage4",
        num_convs=shapes_lib.count(shapes, "convs"),
        concat_input="conv_cat.conv.weight" in shapes,
        **convs,
    )
  return None
