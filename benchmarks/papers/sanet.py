"""SANet (Zhong et al., CVPR 2020), https://arxiv.org/abs/1909.03402."""

from benchmarks.papers import row
from benchmarks.papers import scenes

_CONTEXT = "pcontext/sanet.py"
_VOC = "voc/sanet.py"
_WITH_BACKGROUND = "--protocol background_as_zero"
_VIEWS = "--scales 0.5,0.75,1.0,1.25,1.5,1.75 --flip"
_SERVER = (
    "Figures of the test server, which takes what `predict.py --submission`"
    " writes; ours are of val."
)


def _weights(symbol, values):
  """Returns the rows of one half of Figure 4, without the best weight."""
  return tuple(
      row.Row(
          f"{symbol} = {tenths / 10}",
          "no figure in the text",
          f"{_CONTEXT}:epochs20,{symbol}{tenths:02}",
      )
      for tenths in values
  )


TABLES: tuple[row.Table, ...] = (
    row.Table(
        "Table 1",
        "Ablation on PASCAL-Context, 59 classes",
        (
            row.Row(
                "FCN, Res50",
                "43.2 mIoU, 74.5 pixel accuracy",
                f"{_CONTEXT}:fcn",
            ),
            row.Row(
                "SANet, Res50: SA",
                "49.2 mIoU, 77.2 pixel accuracy",
                f"{_CONTEXT}:sa",
            ),
            row.Row(
                "SANet, Res50: SA, Cat",
                "50.7 mIoU, 79.0 pixel accuracy",
                f"{_CONTEXT}:sa_cat",
            ),
            row.Row(
                "SANet, Res50: SA, Cat, Den",
                "51.9 mIoU, 79.3 pixel accuracy",
                _CONTEXT,
            ),
            row.Row(
                "SANet, Res101: SA, Cat, Den",
                "53.0 mIoU, 80.6 pixel accuracy",
                f"{_CONTEXT}:r101",
            ),
            row.Row(
                "SANet, EffNet-b7: SA, Cat, Den",
                "55.3 mIoU, 81.6 pixel accuracy",
                f"{_CONTEXT}:effnetb7",
            ),
        ),
        "The marks of the columns SA, Cat and Den are lost in the text we have:"
        " that the losses come in in this order is an assumption. After 80"
        " epochs the FCN is below that of Table 3 after 20. The paper does not"
        " say at how many scales it evaluates.",
    ),
    row.Table(
        "Table 2",
        "PASCAL-Context, 60 classes with background",
        (
            row.Row(
                "EncNet, ResNet101",
                "51.7 mIoU",
                "pcontext/encnet.py:r101,paper,paper_recipe",
                f"{_VIEWS} {_WITH_BACKGROUND}",
            ),
            row.Row(
                "SANet, ResNet101",
                "52.1 mIoU",
                f"{_CONTEXT}:r101",
                _WITH_BACKGROUND,
            ),
            row.Row(
                "SANet, EffNet-b7",
                "54.4 mIoU",
                f"{_CONTEXT}:effnetb7",
                _WITH_BACKGROUND,
            ),
        ),
        "The published figures follow from networks of 59 classes, with"
        " background as a class of IoU 0: 53.0 x 59 / 60 is 52.1. Left out, as"
        " the library has no such network or no config of it for this data"
        " set: FCN, CRF-RNN, ParseNet, BoxSup, HighOrder-CRF, Piecewise,"
        " DeepLab-v2 and RefineNet.",
    ),
    row.Table(
        "Table 3",
        "FCN, FCN with SE modules and SANet after 20 epochs, PASCAL-Context",
        (
            row.Row(
                "FCN50",
                "44.9 mIoU, 76.2 pixel accuracy",
                f"{_CONTEXT}:fcn,epochs20",
            ),
            row.Row(
                "FCN101",
                "45.6 mIoU, 76.7 pixel accuracy",
                f"{_CONTEXT}:r101,fcn,epochs20",
            ),
            row.Row(
                "FCN50-SE",
                "44.6 mIoU, 76.0 pixel accuracy",
                "pcontext/fcn_se.py",
            ),
            row.Row(
                "FCN101-SE",
                "45.7 mIoU, 76.6 pixel accuracy",
                "pcontext/fcn_se.py:r101",
            ),
            row.Row(
                "SANet50",
                "49.0 mIoU, 78.9 pixel accuracy",
                f"{_CONTEXT}:epochs20",
            ),
            row.Row(
                "SANet101",
                "50.1 mIoU, 79.2 pixel accuracy",
                f"{_CONTEXT}:r101,epochs20",
            ),
        ),
    ),
    row.Table(
        "Figure 4",
        "Weights of the categorical (alpha) and of the dense loss (beta),"
        " SANet50 after 20 epochs, PASCAL-Context",
        (
            row.Row(
                "alpha = 0.2, beta = 0.8",
                "the best of both curves",
                f"{_CONTEXT}:epochs20",
            ),
            *_weights("alpha", (0, 4, 6, 8, 10)),
            *_weights("beta", (0, 2, 4, 6, 10)),
        ),
        "The text gives the range of alpha, 0 to 1.0, and the best weights;"
        " the curves are a picture, and the steps of 0.2 are ours. Of alpha's"
        " curve beta is 0.8, of beta's alpha is 0.2.",
    ),
    row.Table(
        "Table 4",
        "PASCAL VOC 2012 without COCO",
        (
            row.Row("FCN", "62.2 mIoU", "voc/fcn.py:fcn8s"),
            row.Row("DeepLabv2", "71.6 mIoU", "voc/deeplabv2.py:vgg16"),
            row.Row(
                "EncNet",
                "82.9 mIoU",
                "voc/encnet.py:paper,paper_recipe",
                _VIEWS,
            ),
            row.Row("SANet", "83.2 mIoU", _VOC),
        ),
        f"{_SERVER} All but SANet's are quoted from papers with recipes of"
        " their own; DeepLabv2's has a dense CRF, which the library does not."
        " The IoUs of classes are left out. Left out, as the library has no"
        " such network or no config of its recipe: CRF-RNN, DeconvNet, GCRF,"
        " DPN, Piecewise, ResNet38, PSPNet, DANet and DFN.",
    ),
    row.Table(
        "Table 5",
        "PASCAL VOC 2012 with COCO",
        (
            row.Row("Deeplab-v2, ResNet101", "79.7 mIoU", "voc/deeplabv2.py"),
            row.Row(
                "EncNet, ResNet101",
                "85.9 mIoU",
                "voc/encnet.py:finetune,paper",
                f"{_VIEWS} --checkpoint last",
            ),
            row.Row(
                "SANet, ResNet101",
                "86.1 mIoU",
                f"{_VOC}:finetune",
                "--checkpoint last",
            ),
        ),
        f"{_SERVER} EncNet's and SANet's are the last of the three runs that"
        " their configs name, `coco` the first (EncNet's each with `paper`);"
        " both are trained on val, so that no checkpoint can be chosen by its"
        " score. DeepLab-v2 starts from COCO weights, and has a dense CRF,"
        " which the library does not. Left out, as the library"
        " has no such network or no config of its recipe: CRF-RNN, BoxSup,"
        " DilatedNet, DPN, Piecewise, RefineNet, PSPNet, DeeplabV3 and DFN.",
    ),
    row.Table(
        "Table 6",
        "Complexity, PASCAL VOC 2012 without COCO",
        (
            row.Row(
                "Dilated FCN, ResNet101",
                "78.7 mIoU, 162.7 G MACs, 42.6 M parameters",
                f"{_VOC}:fcn",
            ),
            row.Row(
                "Deeplab V3+, ResNet101",
                "81.5 mIoU, 235.6 G MACs, 59.5 M parameters",
                f"{_VOC}:deeplabv3plus",
            ),
            row.Row(
                "SANet, ResNet101",
                "83.2 mIoU, 204.7 G MACs, 55.5 M parameters",
                _VOC,
            ),
        ),
        f"{_SERVER} Parameters and MACs of Dilated FCN are those of its"
        " backbone without a head, and Deeplab V3+ has exactly the paper's,"
        " both at 480x480. SANet's follow from no reading of the text; the"
        " head's docstring compares six. Left out: SDN and APCNet.",
    ),
    scenes.table(
        {
            "fcn": ("FCN", "43.2 mIoU; 44.9 after 20 epochs"),
            "fcn_se": ("FCN-SE", "44.6 mIoU after 20 epochs"),
            "sanet_plain": ("SANet: SA", "49.2 mIoU"),
            "sanet_cat": ("SANet: SA, Cat", "50.7 mIoU"),
            "sanet": ("SANet: SA, Cat, Den", "51.9 mIoU"),
            "sanet_dense": (
                "SANet: SA, Cat, Den, predicted as in section 3.3",
                "see the row above",
            ),
        }
    ),
)

READINGS: tuple[row.Reading, ...] = (
    row.Reading(
        "SANet, convolutions of a path",
        "Two, of which the first has 2 groups and a fourth of the channels, and"
        " whose kernels are not given: 1x1 and 3x3. Parameters and MACs of"
        " six readings are in the docstring of the head; none has those of"
        " Table 6.",
        "`model.head.groups`, `kernel_sizes` (both grouped: `(2, 2)`)",
    ),
    row.Reading(
        "SANet, classes of a module",
        '"We adapt outputs of SA heads to the class number": the second'
        " convolution of both paths has as many channels.",
        "`model.head.class_scores=classifier`, a 1x1 convolution behind",
    ),
    row.Reading(
        "SANet, ReLU of the main path",
        "Figure 2 leaves out activations; Eqs. 1 and 4 have none behind the"
        " second convolution, and so it is built. In the attention path it is"
        " the sigma of X_attn.",
        "`model.head.main_relu=True`",
    ),
    row.Reading(
        "SANet, pooling",
        "Average in Eq. 5 and Figure 2, maximum in section 3.3: the average,"
        " over cells of 8x8, of which those at the edge have the pixels that"
        " there are. What the upsampling is, is not said: bilinear.",
        "`model.head.pooling=max`",
    ),
    row.Reading(
        "SANet, fusion of the masks",
        "The outputs of the four modules are concatenated; how they become one"
        " is not said: resized to stage 1, and a 1x1 convolution.",
    ),
    row.Reading(
        "SANet, masks",
        "Eq. 7 has one loss, of the fused masks; the caption of Figure 3 has"
        ' "these masks" supervised. By default the fused ones alone.',
        "`model.head.supervise_stages=True`, with a term for each:"
        " `pcontext/sanet.py:stages`",
    ),
    row.Reading(
        "SANet, targets of the categories",
        '"y_nj is the average pooled results of Y^den", and y_nj are the'
        " targets: the share of each class in the labelled pixels.",
        "`loss.category.targets=presence`, 0 or 1 as in EncNet",
    ),
    row.Reading(
        "SANet, scores of the categories",
        "Of what they are computed is not said, unless Y^den is the output:"
        " the mean over the image of the masks' logits, as Table 1 has the"
        " categorical loss without the dense one.",
        "`model.head.category_from=dense`",
    ),
    row.Reading(
        "SANet, categorical loss",
        "Eq. 8 is divided by the number of images alone, so that it is a sum"
        " over the classes. Built is the mean over images and classes, of which"
        " EncNet's weight of 0.2 is. The sum is as many times as strong as"
        " there are classes: on PASCAL-Context a weight of 0.2 x 59.",
        "`loss.category.weight=11.8`",
    ),
    row.Reading(
        "SANet, prediction",
        "The sum of the dense output and of the module on stage 4 in section"
        " 3.3, the merged outputs of four stages in the abstract: the sum, of"
        " logits, though in Eqs. 7 and 9 the same letter is a probability. No"
        " loss but that of each stage's masks supervises the second summand"
        " alone.",
        "`model.head.prediction=masks`",
    ),
    row.Reading(
        "SANet, backbones",
        "Dilated, with an output stride that is not said: 8, on EfficientNet-B7"
        " too, whose four stages end where its strides are 4, 8, 16 and 32."
        " ResNets have three 3x3 convolutions for a stem, as follows from Table"
        " 6: with a 7x7 they would have 42.5 M parameters, not 42.6.",
        "`model.backbone.stem=7x7`, `model.backbone.output_stride`",
    ),
    row.Reading(
        "SANet, recipe",
        "Rates, epochs, batch and poly decay are given; crop, scaling,"
        " momentum, weight decay and ten times the rate for the head are those"
        " of EncNet's code. The crop is 480x480, of which Table 6 is, and not"
        " the 512x512 that section 3.3 supposes. On VOC"
        ' networks train "for 50 epochs on the validation set" in section 4.1'
        " and for 80 on augmented data in 4.4: the latter, and the former at"
        " the end of the chain over COCO.",
    ),
    row.Reading(
        "FCN-SE",
        "Where the module stands is not said, but that it is on top of a"
        " dilated FCN: between the convolution of the FCN head and its"
        " classifier, at a fourth of the channels, its residual of two"
        " convolutions, without a ReLU behind the sum. Its dense layers have"
        " biases.",
    ),
)

PAPER = row.Paper(
    "SANet",
    'Zhong et al., "Squeeze-and-Attention Networks for Semantic Segmentation",'
    " CVPR 2020, https://arxiv.org/abs/1909.03402. Figures 1 to 3 and 5 to 7"
    " are drawings and pictures.",
    TABLES,
    READINGS,
)
