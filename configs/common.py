"""What experiments share: a function per data set, section and variant."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# Data sets.


def context_scenes() -> dict[str, Any]:
  """The embedded data set. Flips only: a crop could cut the cue away."""
  return _images(
      "context_scenes",
      (128, 128),
      scale_range=(1.0, 1.0),
      mean=(127.0, 127.0, 127.0),
      std=(60.0, 60.0, 60.0),
      num_workers=0,
  )


def camvid(crop_size: tuple[int, int], **changes: Any) -> dict[str, Any]:
  """CamVid, 480x360, 11 classes; its test split is left for the report."""
  return _images("camvid", crop_size, **changes)


def voc2012(crop_size: tuple[int, int], **changes: Any) -> dict[str, Any]:
  """PASCAL VOC 2012 and SBD ("trainaug"), 21 classes, 10,582 images."""
  changes = dict(train_split="trainaug") | changes
  return _images("voc2012", crop_size, **changes)


def pcontext59(crop_size: tuple[int, int], **changes: Any) -> dict[str, Any]:
  """PASCAL-Context without background, 59 classes, 4,998 images."""
  return _images("pcontext59", crop_size, **changes)


def ade20k(crop_size: tuple[int, int], **changes: Any) -> dict[str, Any]:
  """ADE20K, 150 classes, 20,210 images."""
  return _images("ade20k", crop_size, **changes)


def cityscapes(crop_size: tuple[int, int], **changes: Any) -> dict[str, Any]:
  """Cityscapes, 2048x1024, 19 classes, 2,975 finely labelled images."""
  return _images("cityscapes", crop_size, **changes)


def custom(crop_size: tuple[int, int], **changes: Any) -> dict[str, Any]:
  """A user's own images and labels, in the folder `root`.

  Where there is one split only, parts of it serve: `train[:90%]` to train on
  and `train[90%:]` to evaluate.
  """
  changes = dict(root="", num_workers=0) | changes
  return _images("custom", crop_size, **changes)


def _images(name, crop_size, **changes):
  """What recipes for segmentation share, unless `changes` differ."""
  options = dict(
      name=name,
      data_dir="data",
      train_split="train",
      eval_split="val",
      crop_size=crop_size,
      scale_range=(0.5, 2.0),
      rotation=0.0,
      flip=True,
      mean=IMAGENET_MEAN,
      std=IMAGENET_STD,
      num_workers=8,
  )
  return options | changes


def cifar10() -> dict[str, Any]:
  """CIFAR-10, 32x32, 10 classes; it has no other split than test to score.

  Padding, flips, mean and deviation as in the authors' code.
  """
  return dict(
      name="cifar10",
      data_dir="data",
      train_split="train",
      eval_split="test",
      crop_size=(32, 32),
      padding=4,
      flip=True,
      mean=(125.307, 122.961, 113.8575),
      std=(51.5865, 50.847, 51.255),
      num_workers=0,
  )


# Sections.


def run(
    *,
    batch_size: int,
    total_steps: int,
    log_every: int = 50,
    checkpoint_every: int = 1_000,
    eval_every: int,
) -> config_dict.ConfigDict:
  """Returns a config without data, model, loss and optimizer.

  Args:
    batch_size: Images of a step, over all devices.
    total_steps: Updates of the parameters.
    log_every: Steps between two lines of metrics.
    checkpoint_every: Steps between two checkpoints.
    eval_every: Steps between two evaluations.
  """
  return config_dict.ConfigDict(
      dict(
          seed=0,
          batch_size=batch_size,
          total_steps=total_steps,
          log_every=log_every,
          checkpoint_every=checkpoint_every,
          eval_every=eval_every,
          # The backbone is random unless source and path are given.
          init_from=dict(source="", path="", channel_order="rgb"),
      )
  )


def resnet(
    depth: int, *, stem: str, dilation: str, output_stride: int = 8
) -> dict[str, Any]:
  """A ResNet; see `models.backbones.resnet` for stems and dilations."""
  return dict(
      name="resnet",
      depth=depth,
      output_stride=output_stride,
      stem=stem,
      dilation=dilation,
  )


def fcn_aux(channels: int, **options: Any) -> dict[str, Any]:
  """The usual auxiliary head: an FCN on stage 3."""
  return dict(name="fcn", stage="stage3", channels=channels, **options)


def cross_entropy(
    output: str, weight: float = 1.0, **options: Any
) -> dict[str, Any]:
  """Pixel-wise cross-entropy; by default the mean over labelled pixels."""
  return dict(
      output=output, loss="softmax_cross_entropy", weight=weight, **options
  )


def over_all_pixels(**terms: Mapping[str, Any]) -> dict[str, Any]:
  """Divides by all pixels, ignored ones too: mmsegmentation, EMANet."""
  return {
      name: {**term, "denominator": "pixels"} for name, term in terms.items()
  }


def presence(
    output: str, weight: float = 0.2, **options: Any
) -> dict[str, Any]:
  """Which classes an image has: EncNet's SE-loss, SANet's categorical loss."""
  return dict(output=output, loss="presence_bce", weight=weight, **options)


def sgd(
    learning_rate: float, weight_decay: float, **options: Any
) -> dict[str, Any]:
  """SGD whose rate falls to 0 by the power 0.9, unless `options` differ."""
  defaults = dict(
      learning_rate=learning_rate,
      momentum=0.9,
      weight_decay=weight_decay,
      weight_decay_mask="all",
      schedule=poly(),
  )
  return defaults | options


def poly(end_value: float = 0.0, **options: Any) -> dict[str, Any]:
  """The polynomial schedule with the papers' power."""
  return dict(name="poly", power=0.9, end_value=end_value, **options)


def evaluation(
    data: Mapping[str, Any], mode: str = "whole", **options: Any
) -> dict[str, Any]:
  """Scores images at the sizes they are trained at; windows are crops.

  Args:
    data: The config's section `data`.
    mode: "whole" or "slide".
    **options: Options of the evaluation, which take precedence.
  """
  defaults = dict(protocol="mmseg", mode=mode, num_pictures=6)
  if mode == "slide":
    defaults["crop_size"] = data["crop_size"]
  for side in ("short_side", "long_side"):
    if side in data:
      defaults[side] = data[side]
  return defaults | options


# Variants.


def apply_variants(
    config: config_dict.ConfigDict,
    names: str,
    variants: Mapping[str, Callable[[config_dict.ConfigDict], None]],
) -> config_dict.ConfigDict:
  """Changes a config to what follows the colon after its file name.

  Args:
    config: The config without variants.
    names: Names of variants with commas between them, "r101,smoke". They apply
      in this order, but `smoke` after all others.
    variants: What each variant does to the config.

  Returns:
    The config.

  Raises:
    ValueError: There is no such variant.
  """
  given = names.split(",") if names else []
  for name in given:
    if name not in variants:
      raise ValueError(
          f"unknown variant {name!r}; known: {', '.join(sorted(variants))}"
      )
  for name in sorted(dict.fromkeys(given), key=lambda name: name == "smoke"):
    variants[name](config)
  return config


def resnet101(config: config_dict.ConfigDict) -> None:
  """Makes the backbone a ResNet-101."""
  config.model.backbone.depth = 101


def use_head(config: config_dict.ConfigDict, head: Mapping[str, Any]) -> None:
  """Takes another head, of which the logits alone are supervised."""
  config.model.head = head
  config.loss = dict(ce=cross_entropy("logits"))


def smoke(config: config_dict.ConfigDict) -> None:
  """Shrinks an experiment to a run of seconds that still does everything."""
  config.total_steps = 4
  config.batch_size = 8
  config.log_every = 2
  config.checkpoint_every = 2
  config.eval_every = 4
  if "warmup_steps" in config.optim.schedule:
    config.optim.schedule.warmup_steps = 1


def photographs_smoke(config: config_dict.ConfigDict) -> None:
  """Shrinks an experiment on photographs: a small network on small crops."""
  smoke(config)
  config.data.crop_size = (64, 64)
  config.data.num_workers = 0
  config.data.eval_split += "[:2]"
  config.model.dtype = "float32"
  backbone, head = config.model.backbone, config.model.head
  if backbone.name == "resnet":
    # The least with three blocks for a multi-grid, with 1x1s for a stride.
    is_multi_grid = "multi_grid" in backbone.get("dilation", "")
    backbone.depth = 34 if is_multi_grid else 18
    if backbone.get("stride_in_1x1"):
      backbone.depth = 50
  elif backbone.name == "efficientnet" and backbone.variant[0] == "b":
    backbone.variant = "b0"
  elif backbone.name == "vgg16":
    backbone.channels = 8
    head.get("host", head).channels = 32  # Of fc6 and fc7.
  config.eval.short_side = 64
  config.eval.long_side = None
  if config.eval.mode == "slide":
    config.eval.crop_size = config.data.crop_size
