"""Whole networks have the numbers of parameters that were published."""

from absl.testing import parameterized
import networks

FCN = dict(name="vgg16", form="fcn")
DILATED = dict(name="vgg16", form="dilated")
DEEPLAB = dict(name="vgg16", form="deeplab")
ASPP_L = dict(name="deeplabv2", channels=1024)
FC6_TO_SCORE = (
    (49 * 512 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 21 + 21)
)
AUX = dict(aux_head=dict(name="fcn", stage="stage3"))
MMSEG_ASPP = dict(channels=512, project_kernel_size=3)


def resnet(depth=50, **fields):
  return dict(name="resnet", depth=depth, **fields)


XCEPTION = dict(output_stride=16, dilation="multi_grid")
MSRA = dict(stem="7x7", dilation="uniform", stride_in_1x1=True, ceil_pool=True)

# Backbone, head and its fields, parameters of the whole with 21 classes.
TOTALS = {
    "semseg_pspnet_r50": (resnet(), "pspnet", {}, 46_716_373),
    "semseg_pspnet_r101": (resnet(101), "pspnet", {}, 65_708_501),
    "pytorch_encoding_deeplabv3_r50": (
        resnet(),
        "deeplabv3",
        dict(refine=True, dropout_rate=0.1),
        39_762_645,
    ),
    "jfzhang95_deeplabv3plus_r50": (
        resnet(stem="7x7", **XCEPTION),
        "deeplabv3plus",
        {},
        40_352_181,
    ),
    "jfzhang95_deeplabv3plus_r101_deep64": (
        resnet(101),
        "deeplabv3plus",
        {},
        59_468_085,
    ),
    # Published: 44.049 M.
    "deeplabv2_r101": (resnet(101, **MSRA), "deeplabv2", {}, 44_048_532),
    # In millions: 134.347 (without a kernel for the upsampling), 136.706,
    # 20.505, 37.878. FCN-16s and 8s have the scores of one and two pools more.
    "fcn_32s": (FCN, "fcn_vgg", dict(form="32s"), 134_346_581),
    "fcn_16s": (
        FCN,
        "fcn_vgg",
        dict(form="16s"),
        134_346_581 + (512 * 21 + 21),
    ),
    "fcn_8s": (
        FCN,
        "fcn_vgg",
        dict(form="8s"),
        134_346_581 + (512 * 21 + 21) + (256 * 21 + 21),
    ),
    "fcn_dilated": (DILATED, "fcn_vgg", {}, 136_706_389),
    "large_fov": (
        DEEPLAB,
        "deeplabv2",
        dict(channels=1024, rates=(12,)),
        20_505_429,
    ),
    "aspp_l": (DEEPLAB, "deeplabv2", dict(channels=1024), 37_877_652),
}
# What a summary of SCA calls DeepLabV2, with features of a ResNet: 1x1, 3x3 and
# pooled branches as wide as there are classes, their batch norms, projection;
# 23.60 M for the predictor.
TOTALS["sca_deeplabv2_concat_r50"] = (
    resnet(stem="7x7", output_stride=16, dilation="uniform"),
    "sca",
    dict(host=dict(name="deeplabv2_concat")),
    23_508_032 + (29 * 2048 + 105 + 12) * 21 + 23_601_408,
)
# With an auxiliary head; mmsegmentation 1.2.2, counted there.
MMSEG = {
    "pspnet": (dict(branch_channels=512), 48_977_034),
    "deeplabv3": (MMSEG_ASPP, 68_114_570),
    "deeplabv3plus": (dict(separable=True, **MMSEG_ASPP), 43_591_418),
}
# What each reading of SCA adds to FCN-VGG16 and to DeepLabV2: 5.901 M,
# 0.242 M, 1.374 M.
SCA = {"features": 5_900_544, "logits": 242_260, "scores": 1_373_524}


class TotalsTest(parameterized.TestCase):

  @parameterized.named_parameters((k, *v) for k, v in TOTALS.items())
  def test_num_params_of_the_whole_network(self, backbone, name, head, total):
    model = networks.build(backbone, dict(name=name, **head), 21)
    out, variables = networks.abstract(model, (75, 90))
    self.assertEqual(networks.count(variables["params"]), total)
    self.assertEqual(out["logits"].shape, (1, 75, 90, 21))

  @parameterized.named_parameters((k, k, *v) for k, v in MMSEG.items())
  def test_num_params_of_mmsegmentation(self, name, head, total):
    backbone = resnet(stem="deep32")
    model = networks.build(backbone, dict(name=name, **head), 21, **AUX)
    self.assertEqual(networks.num_params(model), total)

  @parameterized.product(
      reading=list(SCA),
      host=(
          (DILATED, dict(name="fcn_vgg"), "fcn_dilated"),
          (DEEPLAB, dict(name="deeplabv2", channels=1024), "aspp_l"),
      ),
  )
  def test_num_params_of_sca(self, reading, host):
    backbone, head, without = host
    head = dict(name="sca", reading=reading, host=head)
    count = networks.num_params(networks.build(backbone, head, 21))
    self.assertEqual(count, TOTALS[without][-1] + SCA[reading])

  def test_num_params_of_mfnet(self):
    backbone = resnet(stem="7x7", **XCEPTION)
    model = networks.build(backbone, dict(name="mfnet"), 21)
    # Published as 29.73 M, cut off after two digits.
    self.assertEqual(networks.num_params(model, (513, 513)), 29_738_997)

  def test_the_totals_of_vgg_are_those_of_its_layers(self):
    vgg = 14_714_688
    self.assertEqual(TOTALS["fcn_32s"][-1], vgg + FC6_TO_SCORE)
    self.assertEqual(
        TOTALS["fcn_dilated"][-1], vgg + 512 * 512 * 9 + 512 + FC6_TO_SCORE
    )
