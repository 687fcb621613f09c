"""torchvision's FCN and DeepLabV3, without dropout."""

import functools

from torch import nn
from torchvision.models import segmentation


class Network(nn.Module):
  """A network of torchvision that returns its maps at their own size."""

  def __init__(self, build, num_classes):
    super().__init__()
    kw = dict(weights=None, weights_backbone=None, aux_loss=True)
    self.model = build(num_classes=num_classes, **kw)
    for module in self.model.modules():
      if isinstance(module, nn.Dropout):
        module.p = 0.0

  def forward(self, x):
    features = self.model.backbone(x)
    out = {"logits": self.model.classifier(features["out"])}
    if self.training:
      out["aux_logits"] = self.model.aux_classifier(features["aux"])
    return out


# A function of the number of classes by the name of the network.
NETWORKS = {
    f"{head}_r{depth}": functools.partial(
        Network, getattr(segmentation, f"{head}_resnet{depth}")
    )
    for head in ("fcn", "deeplabv3")
    for depth in (50, 101)
}
