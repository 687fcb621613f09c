"""Presets that several experiments share: one function per data set, recipe."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def context_scenes() -> dict:
  """The embedded data set. Flips only: a crop could cut the cue away."""
  return dict(
      name="context_scenes",
      data_dir="data",
      train_split="train",
      eval_split="val",
      crop_size=(128, 128),
      scale_range=(1.0, 1.0),
      rotation=0.0,
      flip=True,
      mean=(127.0, 127.0, 127.0),
      std=(60.0, 60.0, 60.0),
      num_workers=0,
  )


def camvid(
    crop_size: tuple[int, int],
    scale_range: tuple[float, float],
    rotation: float = 10.0,
) -> dict:
  """CamVid, 480x360, 11 classes; evaluated on its test split."""
  return dict(
      name="camvid",
      data_dir="data",
      train_split="train",
      eval_split="test",
      crop_size=crop_size,
      scale_range=scale_range,
      rotation=rotation,
      flip=True,
      mean=IMAGENET_MEAN,
      std=IMAGENET_STD,
      num_workers=0,
  )


def voc2012(crop_size: tuple[int, int], **changes) -> dict:
  """PASCAL VOC 2012 and SBD ("trainaug"), 21 classes, 10,582 images."""
  return _photographs("voc2012", "trainaug", crop_size, changes)


def pcontext59(crop_size: tuple[int, int], **changes) -> dict:
  """PASCAL-Context without background, 59 classes, 4,998 images."""
  return _photographs("pcontext59", "train", crop_size, changes)


def ade20k(crop_size: tuple[int, int], **changes) -> dict:
  """ADE20K, 150 classes, 20,210 images."""
  return _photographs("ade20k", "train", crop_size, changes)


def cityscapes(crop_size: tuple[int, int], **changes) -> dict:
  """Cityscapes, 2048x1024, 19 classes, 2,975 finely labelled images."""
  return _photographs("cityscapes", "train", crop_size, changes)


def custom(crop_size: tuple[int, int]) -> dict:
  """A user's own images and labels, in the folder `root`.

  Where there is one split only, parts of it serve: `train[:90%]` to train on
  and `train[90%:]` to evaluate.
  """
  changes = dict(root="", num_workers=0)
  return _photographs("custom", "train", crop_size, changes)


def _photographs(name, train_split, crop_size, changes):
  """What the recipes on large photographs share, unless `changes` say so."""
  settings = dict(
      name=name,
      data_dir="data",
      train_split=train_split,
      eval_split="val",
      crop_size=crop_size,
      scale_range=(0.5, 2.0),
      rotation=0.0,
      flip=True,
      mean=IMAGENET_MEAN,
      std=IMAGENET_STD,
      num_workers=8,
  )
  return settings | changes


def cifar10() -> dict:
  """CIFAR-10, 32x32, 10 classes; evaluated on its test split.

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


def random_weights() -> dict:
  """The backbone starts from a file only if source and path are given."""
  return dict(source="", path="", channel_order="rgb")


def cross_entropy(weight: float = 1.0, **options) -> dict:
  """Pixel-wise cross-entropy; by default the mean over labelled pixels."""
  return dict(loss="softmax_cross_entropy", weight=weight, **options)


# What mmsegmentation and EMANet divide by: ignored pixels count, too.
ALL_PIXELS = dict(denominator="pixels")


def se_loss(weight: float = 0.2) -> dict:
  """EncNet's SE-loss; 0.2 in the authors' code."""
  return dict(loss="presence_bce", weight=weight)


def apply_variant(config, variant: str, variants: dict) -> None:
  """Changes a config to what follows the colon after its file name."""
  if not variant:
    return
  if variant not in variants:
    raise ValueError(
        f"unknown variant {variant!r}; known: {', '.join(sorted(variants))}"
    )
  variants[variant](config)


def smoke(config) -> None:
  """Shrinks an experiment to a run of seconds that still does everything."""
  config.total_steps = 4
  config.batch_size = 8
  config.log_every = 2
  config.checkpoint_every = 2
  config.eval_every = 4
  if "warmup_steps" in config.optim.schedule:
    config.optim.schedule.warmup_steps = 1


def photographs_smoke(config) -> None:
  """Shrinks an experiment on photographs: a small network on small crops."""
  smoke(config)
  config.data.crop_size = (64, 64)
  config.data.num_workers = 0
  config.data.eval_split += "[:2]"
  config.model.dtype = "float32"
  backbone = config.model.backbone
  if backbone.name == "resnet":
    backbone.depth = 34  # The least with the blocks that a multi-grid needs.
  elif backbone.name == "efficientnet":
    backbone.variant = "b0"
  elif backbone.name == "vgg16":
    backbone.channels = 8
  config.eval.short_side = 64
  config.eval.long_side = None
  if config.eval.get("mode") == "slide":
    config.eval.crop_size = (64, 64)


def cifar10_smoke(config) -> None:
  """Shrinks a CIFAR-10 experiment, and takes drawn images in its place."""
  smoke(config)
  config.data.name = "cifar10_stand_in"
  config.data.eval_split = "test[:100]"
  config.model.backbone.widen = 1
