"""Recipes of published code that several configs follow."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from ml_collections import config_dict

from configs import common


def pytorch_encoding(
    config: config_dict.ConfigDict,
    *,
    depth: int,
    lateral: bool,
    learning_rate: float,
) -> None:
  """Makes a config EncNet's as its authors train it, and merge its views.

  This is their code since the end of 2018. In June, as in the paper, it turned
  images by up to 10 degrees and blurred half of them, with a standard deviation
  of up to 1 (`data.rotation`, `data.blur_rate`), and scaled by the short side.

  Args:
    config: The config, which has its data.
    depth: Layers of the ResNet.
    lateral: Whether stages 2 and 3 join the head's features.
    learning_rate: Of the backbone; the heads have ten times as much.
  """
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(depth, stem="deep64", dilation="contracted"),
      head=dict(
          name="encnet",
          channels=512,
          num_codewords=32,
          lateral=lateral,
          channel_dropout=False,
      ),
      aux_head=common.fcn_aux(256, channel_dropout=False),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits"),
      se=common.presence("se_logits"),
      aux=common.cross_entropy("aux_logits", 0.2),
  )
  multipliers = dict(head=10.0, aux_head=10.0)
  config.optim = common.sgd(learning_rate, 1e-4, lr_multipliers=multipliers)
  config.eval = common.evaluation(
      config.data, "slide", merge="pytorch_encoding"
  )


def sanet(
    config: config_dict.ConfigDict, *, depth: int, learning_rate: float
) -> None:
  """Makes a config SANet's as its paper trains it.

  The paper gives rates, epochs and batch; the rest of the recipe is EncNet's,
  which it builds on.

  Args:
    config: The config, which has its data.
    depth: Layers of the ResNet.
    learning_rate: Of the backbone; the head has ten times as much.
  """
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(depth, stem="deep64", dilation="contracted"),
      head=dict(name="sanet"),
  )
  config.loss = dict(
      mask=common.cross_entropy("mask_logits"),
      category=common.presence("category_logits", targets="area"),
      dense=common.cross_entropy("dense_logits", 0.8),
  )
  config.optim = common.sgd(
      learning_rate, weight_decay=1e-4, lr_multipliers=dict(head=10.0)
  )
  config.eval = common.evaluation(config.data, "slide")


def semseg(
    config: config_dict.ConfigDict, *, depth: int, long_side: int | None
) -> None:
  """Makes a config PSPNet's as hszhao/semseg trains it.

  Args:
    config: The config, which has its data.
    depth: Layers of the ResNet.
    long_side: To which images are brought in evaluation; None is their own.
  """
  # Its blur of 5 taps, 1 4 6 4 1, has a standard deviation of 1.
  config.data.update(blur_rate=0.5, blur_sigma=(1.0, 1.0))
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(depth, stem="deep64", dilation="uniform"),
      head=dict(name="pspnet", channels=512),
      aux_head=common.fcn_aux(256),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits"),
      aux=common.cross_entropy("aux_logits", 0.4),
  )
  multipliers = dict(head=10.0, aux_head=10.0)
  config.optim = common.sgd(0.01, 1e-4, lr_multipliers=multipliers)
  config.eval = common.evaluation(config.data, "slide", long_side=long_side)


def lite(
    config: config_dict.ConfigDict,
    *,
    class_weights: Sequence[float] | None = None,
) -> None:
  """Makes a config DeepLabV3+ on EfficientNet-Lite0, sized for a CPU.

  The backbone starts from ImageNet weights (the extra `pretrained`). No paper
  has this recipe.

  Args:
    config: The config, which has its data.
    class_weights: Of the cross-entropy; None weighs all pixels alike.
  """
  config.init_from.source = "efficientnet_lite"
  # What the weights were trained with.
  config.data.mean = (127.0, 127.0, 127.0)
  config.data.std = (128.0, 128.0, 128.0)
  config.model = dict(
      dtype="float32",
      align_corners=False,
      backbone=dict(
          name="efficientnet",
          variant="lite0",
          output_stride=16,
          uneven_padding=True,
          drop_rate=0.1,
      ),
      head=dict(
          name="deeplabv3plus",
          channels=128,
          low_channels=32,
          rates=(3, 6, 9),
          aspp_dropout_rate=0.1,
          decoder_dropout_rate=0.1,
      ),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits", class_weights=class_weights)
  )
  config.optim = dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=0.01,
      weight_decay_mask="kernels",
      ema_decay=0.99,
      schedule=common.poly(warmup_steps=50),
  )
  config.eval = common.evaluation(config.data, batch_size_per_device=1)


def encnet_paper(config: config_dict.ConfigDict) -> None:
  """Makes an EncNet that of the paper, where the authors' code differs.

  The gate multiplies, codewords are summed, nothing is projected or lateral,
  and the auxiliary head is a second encoding with the SE-loss alone.
  """
  head = config.model.head
  head.update(gate="multiply", pooling="sum", project=False, lateral=False)
  if "se" not in config.loss:
    _drop_aux(config)
    return
  config.model.aux_head = dict(
      name="encoding_aux",
      num_codewords=head.num_codewords,
      pooling="sum",
      project=False,
  )
  config.loss.aux = common.presence("aux_se_logits", config.loss.se.weight)


def encnet_paper_recipe(
    config: config_dict.ConfigDict, *, learning_rate: float, total_steps: int
) -> None:
  """Takes rate, epochs and rotation of EncNet's paper.

  It names neither a size that scales refer to nor a rate of the heads: both
  stay as in the code.
  """
  config.optim.learning_rate = learning_rate
  config.total_steps = total_steps
  config.data.rotation = 10.0


def encnet_without_se_loss(config: config_dict.ConfigDict) -> None:
  """Takes the SE-loss away, and an auxiliary head that has no other."""
  config.model.head.se_loss = False
  del config.loss.se
  if config.model.aux_head.name == "encoding_aux":
    _drop_aux(config)


def encnet_fcn(config: config_dict.ConfigDict) -> None:
  """Takes EncNet's baseline, which the authors train without auxiliary."""
  _drop_aux(config)
  config.model.head = dict(name="fcn", channel_dropout=False)
  config.loss = dict(ce=common.cross_entropy("logits"))


def encnet_se_weight(config: config_dict.ConfigDict, weight: float) -> None:
  """Weighs the SE-loss of each head."""
  for term in config.loss.values():
    if term.loss == "presence_bce":
      term.weight = weight


def encnet_codewords(config: config_dict.ConfigDict, number: int) -> None:
  """Gives each encoding a number of codewords."""
  for part in (config.model.head, config.model.get("aux_head", {})):
    if "num_codewords" in part:
      part.num_codewords = number


def _drop_aux(config):
  del config.model.aux_head
  del config.loss.aux
  del config.optim.lr_multipliers.aux_head


def mmseg_20k(head: Mapping[str, Any]) -> config_dict.ConfigDict:
  """Returns mmsegmentation's schedule of 20,000 steps on VOC 2012."""
  config = common.run(batch_size=16, total_steps=20_000, eval_every=5_000)
  config.data = common.voc2012(
      (512, 512),
      short_side=512,
      long_side=2048,
      cat_max_ratio=0.75,
      photometric_distortion=True,
  )
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=common.resnet(50, stem="deep32", dilation="contracted"),
      head=head,
      aux_head=common.fcn_aux(256),
  )
  config.loss = common.over_all_pixels(
      ce=common.cross_entropy("logits"),
      aux=common.cross_entropy("aux_logits", 0.4),
  )
  config.optim = common.sgd(
      0.01, weight_decay=5e-4, schedule=common.poly(end_value=1e-4)
  )
  config.eval = common.evaluation(config.data)
  return config


def mfnet_report_recipe(config: config_dict.ConfigDict) -> None:
  """Takes the report's rate, and its images without augmentation."""
  config.data = common.voc2012(
      (513, 513),
      train_split="train",
      short_side=513,
      scale_range=(1.0, 1.0),
      flip=False,
      center=True,
  )
  config.optim.learning_rate = 0.07


def mfnet_report(
    config: config_dict.ConfigDict, head: Mapping[str, Any]
) -> None:
  """Makes a config one of the MFNet report's, see `configs/voc/mfnet.py`."""
  config.update(
      common.run(
          batch_size=4,
          total_steps=18_300,  # 50 epochs of 1,464 images.
          eval_every=366,  # An epoch: the report has curves over epochs.
      )
  )
  config.data = common.voc2012(
      (513, 513), train_split="train", short_side=513, blur_rate=0.5
  )
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(
          50, stem="7x7", dilation="multi_grid", output_stride=16
      ),
      head=head,
  )
  config.loss = dict(
      ce=common.cross_entropy("logits", denominator="labelled_times_images")
  )
  config.optim = common.sgd(
      0.007, weight_decay=5e-4, lr_multipliers=dict(head=10.0)
  )
  config.eval = common.evaluation(config.data, "slide")


def sca(config: config_dict.ConfigDict) -> None:
  """Makes a config SCA's, on a dilated FCN, as the summary of its paper has it.

  What follows the convolutions of VGG16 starts afresh, as there.

  Args:
    config: The config, which has its data.
  """
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(name="vgg16", form="dilated"),
      head=dict(
          name="sca",
          reading="features",
          host=dict(name="fcn_vgg", channel_dropout=False),
      ),
  )
  config.init_from.fresh = ("head",)
  config.loss = dict(ce=common.cross_entropy("logits"))
  config.optim = common.sgd(0.01, weight_decay=5e-4)
  config.eval = common.evaluation(config.data)


def _sca_host(config, backbone, host):
  config.model.backbone = backbone
  if config.model.head.name == "sca":
    config.model.head.host = host
  else:
    config.model.head = host


def _sca_deeplabv2(config):
  backbone = dict(name="vgg16", form="deeplab")
  _sca_host(config, backbone, dict(name="deeplabv2", channels=1024))


def _sca_deeplabv2_concat(config):
  # The stem and blocks of torchvision's, one dilation to a stage.
  backbone = common.resnet(
      101, stem="7x7", dilation="uniform", output_stride=16
  )
  _sca_host(config, backbone, dict(name="deeplabv2_concat"))


def _sca_reading(reading):
  return lambda config: config.model.head.update(reading=reading)


def _no_sca(config):
  config.model.head = config.model.head.host


# Its hosts and readings, with and without it; the same for each data set.
SCA_VARIANTS = {
    "deeplabv2": _sca_deeplabv2,
    "deeplabv2_concat": _sca_deeplabv2_concat,
    "logits": _sca_reading("logits"),
    "scores": _sca_reading("scores"),
    "no_sca": _no_sca,
    "smoke": common.photographs_smoke,
}
