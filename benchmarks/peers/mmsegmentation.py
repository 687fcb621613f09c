"""mmsegmentation's own networks, without dropout.

  pip install torch mmengine mmcv-lite==2.1.0 mmsegmentation==1.2.2 ftfy regex \
      "numpy<2"
"""

import functools
import sys
from unittest import mock

# In place of compiled operators, which mmcv-lite does not have and none of
# these networks calls; of torchvision, which a CPU build may lack.
for _name in ("mmcv._ext", "torchvision._meta_registrations"):
  sys.modules.setdefault(_name, mock.MagicMock())

from mmseg.models import segmentors  # noqa: E402
from torch import nn  # noqa: E402

_NORM = dict(norm_cfg=dict(type="BN"))
# The loss is that of all peers: `server.total_loss`.
_HEAD = dict(dropout_ratio=0.0, align_corners=False, **_NORM)
_STAGE4 = dict(in_channels=2048, in_index=3, channels=512)
_HEADS = {
    "deeplabv3": dict(type="ASPPHead", dilations=(1, 12, 24, 36), **_STAGE4),
    "encnet": dict(
        type="EncHead",
        in_channels=(512, 1024, 2048),
        in_index=(1, 2, 3),
        channels=512,
        num_codes=32,
        use_se_loss=True,
        add_lateral=False,
    ),
    "fcn": dict(type="FCNHead", num_convs=2, concat_input=True, **_STAGE4),
    "pspnet": dict(type="PSPHead", pool_scales=(1, 2, 3, 6), **_STAGE4),
}


class Network(nn.Module):
  """A segmentor that returns its maps by name."""

  def __init__(self, segmentor):
    super().__init__()
    self.segmentor = segmentor

  def forward(self, x):
    features = self.segmentor.extract_feat(x)
    out = self.segmentor.decode_head(features)
    logits, *others = out if isinstance(out, tuple) else (out,)
    named = {"logits": logits}
    if others:
      named["se_logits"] = others[0]
    if self.training:
      named["aux_logits"] = self.segmentor.auxiliary_head(features)
    return named


def _build(head, depth, num_classes):
  kw = dict(num_classes=num_classes, **_HEAD)
  aux = dict(in_channels=1024, in_index=2, channels=256)
  return Network(
      segmentors.EncoderDecoder(
          backbone=dict(
              type="ResNetV1c",
              depth=depth,
              strides=(1, 2, 1, 1),
              dilations=(1, 1, 2, 4),
              contract_dilation=True,
              **_NORM,
          ),
          decode_head=dict(**_HEADS[head], **kw),
          auxiliary_head=dict(
              type="FCNHead", num_convs=1, concat_input=False, **aux, **kw
          ),
      )
  )


# A function of the number of classes by the name of the network.
NETWORKS = {
    f"{head}_r{depth}": functools.partial(_build, head, depth)
    for head in _HEADS
    for depth in (50, 101)
}
