"""SCA (Wang et al., 2017), https://arxiv.org/abs/1711.08278."""

from benchmarks.papers import row
from benchmarks.papers import scenes

_NONE = "no figure in the text"
_NOTE = (
    "The text at hand is a summary of the paper, which names networks and data"
    " sets and has no figure. Rows with and without SCA differ in nothing but"
    " the module."
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


TABLES: tuple[row.Table, ...] = (
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
        "See PASCAL VOC 2012.",
    ),
    scenes.table({"fcn": ("FCN", _NONE), "sca": ("FCN + SCA", _NONE)}),
)

READINGS: tuple[row.Reading, ...] = (
    row.Reading(
        "SCA, what it acts on",
        "The prose speaks of features and neurons. The pseudo-code applies the"
        " module to what a whole network returns, by a predictor of 512 inputs"
        " and an output per class, whose product with the mean of either map"
        " does not fit. Built on the features before the classifier, with as"
        " many outputs as inputs, 512 on VGG16 and 2048 on ResNet-101.",
        "`model.head.reading=logits` (both the predictor and the sum on the"
        " scores) or `scores` (predicted from features, added to the scores)",
    ),
    row.Reading(
        "SCA, predictor",
        "How its four branches are combined and how the predictor starts is not"
        " said: summed, as DeepLabV2's, and N(0, 0.01), as the classifier.",
    ),
    row.Reading(
        "SCA on FCN-VGG16",
        "The 7x7 convolution has no padding, and nothing brings the scores to"
        " the size of the image: padded by 3, and bilinear.",
    ),
    row.Reading(
        "SCA on FCN-VGG16, weights",
        "The layers behind the convolutions start at N(0, 0.01), though VGG16"
        " has weights for two of them: as written. Of the convolution in the"
        " place of the last pooling nothing is said: He's initialisation.",
        "`init_from.fresh=()`",
    ),
    row.Reading(
        "SCA on DeepLab-V2",
        "The abstract has baselines upon VGG16. The pseudo-code has ResNet-101"
        " at output stride 16, whose strides it leaves at 32, and branches that"
        " are concatenated and end in batch norm, ReLU and dropout. Both are"
        " built, the latter with the last stage dilated by 2 in place of its"
        " stride, and without biases before batch norms, which undo them.",
        "variants `deeplabv2` and `deeplabv2_concat`",
    ),
    row.Reading(
        "SCA, recipe",
        "SGD at 0.01, 16 images, 50 epochs, 512 pixels. No schedule and no"
        " augmentation are named: poly, scales from 0.5 to 2 and flips; VOC"
        " 2012 with SBD.",
        "`optim.schedule.name=constant`, `data.scale_range=(1,1)`,"
        " `data.flip=False`, `data.train_split=train`",
    ),
)

PAPER = row.Paper(
    "SCA",
    "Z. Wang, F. Gu, D. Lischinski, D. Cohen-Or, C. Tu and B. Chen,"
    ' "Neuron-level Selective Context Aggregation for Scene Segmentation",'
    " 2017, https://arxiv.org/abs/1711.08278.",
    TABLES,
    READINGS,
)
