"""Hugging Face transformers: ResNet, as `ResNetModel` and with a classifier.

Its stem is the 7x7 one, with `downsample_in_bottleneck` its stride is that of
`stride_in_1x1`.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Rule


def _resnet(backbone):
  del backbone

  def stage(m):
    return f"encoder.stages.{int(m[1]) - 1}.layers.{int(m[2]) - 1}"

  prefix = r"stage(\d)_block(\d+)"
  rules = [
      *naming.conv_norm(
          "stem_conv1",
          "embedder.embedder.convolution",
          "embedder.embedder.normalization",
      )
  ]
  for ours, theirs in (("conv", "convolution"), ("bn", "normalization")):
    rules += (
        Rule(
            rf"{prefix}/conv(\d)/{ours}",
            lambda m, t=theirs: f"{stage(m)}.layer.{int(m[3]) - 1}.{t}",
        ),
        Rule(
            rf"{prefix}/shortcut/{ours}",
            lambda m, t=theirs: f"{stage(m)}.shortcut.{t}",
        ),
    )
  return tuple(rules)


SOURCE = naming.Source(
    backbone=naming.backbones({"resnet": _resnet}),
    prefixes=("resnet.", ""),
    beside_backbone=((r"classifier\.1\..*", naming.IMAGENET_CLASSIFIER),),
)
