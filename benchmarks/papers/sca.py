"""SCA (Wang et al., 2017), https://arxiv.org/abs/1711.08278."""

from benchmarks.papers import row

_NONE = "no figure"
_NOTE = (
    "The rows follow a summary of the paper, which names networks and data sets"
    " and has no figure. Its prose and the abstract build on VGG16, its"
    " pseudo-code has a ResNet-101 at output stride 16 and a pyramid that"
    " concatenates: both are here. Rows with and without SCA differ in nothing"
    " but the module. The pseudo-code applies the module to what a network"
    " returns; the rows apply it to the features before the classifier, and"
    " the variants `logits` and `scores` have the other readings."
)


def _rows(config):
  labels = {
      "FCN-VGG16": "",
      "DeepLab-V2, VGG16": "deeplabv2",
      "DeepLab-V2, ResNet-101": "deeplabv2_concat",
  }
  rows = []
  for label, host in labels.items():
    for suffix, sca in (("", "no_sca"), (" + SCA", "")):
      variants = ",".join(filter(None, (host, sca)))
      path = f"{config}:{variants}" if variants else config
      rows.append(row.Row(f"{label}{suffix}", _NONE, path))
  return tuple(rows)


TABLES = (
    row.Table(
        "PASCAL VOC 2012",
        "FCN and DeepLab-V2 with and without SCA",
        _rows("voc/sca.py"),
        _NOTE,
    ),
    row.Table(
        "Cityscapes",
        "FCN and DeepLab-V2 with and without SCA",
        _rows("cityscapes/sca.py"),
        "As of PASCAL VOC 2012.",
    ),
)
