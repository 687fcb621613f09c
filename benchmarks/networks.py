"""The networks that are timed beside peers, as configs."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import MutableMapping
from collections.abc import Sequence
import functools
from typing import Any
from typing import NamedTuple

from ml_collections import config_dict

from configs import common
from configs import quickstart
from configs import recipes
from configs.camvid import lite
from ctxseg_jax import errors

# Of all networks: a recipe that PyTorch has too, at a rate that moves the loss
# and keeps an untrained network calm.
SGD = dict(learning_rate=1e-3, momentum=0.9, weight_decay=1e-4)


class Shape(NamedTuple):
  """What a network is timed with.

  Attributes:
    size: (H, W) of the images; None is that of the network's config.
    batch: Images.
    dtype: Compute dtype.
    remat: What our backbone keeps for the backward pass.
    num_chunks: Parts in which our loss upsamples and scores the logits.
  """

  size: tuple[int, int] | None = None
  batch: int = 2
  dtype: str = "float32"
  remat: str = "none"
  num_chunks: int = 1


# mmsegmentation's forms; those of torchvision; what both have of a plain one.
_MMSEGMENTATION = {
    "deeplabv3": dict(
        channels=512, project_kernel_size=3, aspp_dropout_rate=0.0
    ),
    "encnet": dict(channels=512, num_codewords=32),
    "fcn": dict(channels=512, num_convs=2, concat_input=True),
    "pspnet": dict(channels=512, branch_channels=512),
}
_TORCHVISION = {
    "deeplabv3": dict(channels=256, refine=True, aspp_dropout_rate=0.0),
    "fcn": dict(channels=512),
}


def _resnet(head, depth, source):
  options = _MMSEGMENTATION
  if source == "torchvision":
    options = _TORCHVISION
  head = dict(name=head, dropout_rate=0.0, **options[head])
  config = recipes.mmseg_20k(head)
  config.batch_size = 2
  backbone = config.model.backbone
  backbone.depth = depth
  if source == "torchvision":
    backbone.stem = "7x7"
  config.model.aux_head.dropout_rate = 0.0
  config.loss = dict(
      ce=common.cross_entropy("logits"),
      aux=common.cross_entropy("aux_logits", 0.4),
  )
  if head["name"] == "encnet":
    config.loss.se = common.presence("se_logits")
  return config


def _lite(source):
  del source
  config = lite.get_config()
  config.init_from.source = ""
  config.model.backbone.drop_rate = 0.0
  config.model.head.update(
      dropout_rate=0.0, aspp_dropout_rate=0.0, decoder_dropout_rate=0.0
  )
  config.loss = dict(ce=common.cross_entropy("logits"))
  return config


def _quickstart(source):
  del source
  return quickstart.get_config()


# A function of the peer's source, `peers.server.SOURCES`, by name.
NETWORKS: dict[str, Callable[[str], config_dict.ConfigDict]] = {
    f"{head}_r{depth}": functools.partial(_resnet, head, depth)
    for head, depth in (
        ("fcn", 50),
        ("pspnet", 50),
        ("deeplabv3", 50),
        ("encnet", 50),
        ("deeplabv3", 101),
        ("encnet", 101),
    )
} | {"deeplabv3plus_lite0": _lite, "quickstart": _quickstart}


def set_modes(
    config: MutableMapping[str, Any], remat: str, num_chunks: int
) -> None:
  """Changes a config's remat and in how many parts its losses are computed."""
  if remat != "none":
    config["model"]["backbone"]["remat"] = remat
  if num_chunks > 1:
    for term in config["loss"].values():
      if term["loss"] == "softmax_cross_entropy":
        term["num_chunks"] = num_chunks


# Those that are timed at the size and batch of their configs.
OWN_SIZE = ("deeplabv3plus_lite0", "quickstart")


def config(name: str, source: str, shape: Shape) -> config_dict.ConfigDict:
  """Returns a config without dropout, trained by SGD at a constant rate."""
  return _shaped(NETWORKS[name](source), shape)


# Heads that predict from the features of a ResNet alone.
HEADS = (
    "danet",
    "deeplabv2",
    "deeplabv3",
    "deeplabv3plus",
    "double_attention",
    "emanet",
    "encnet",
    "fcn",
    "fcn_se",
    "mfnet",
    "nonlocal",
    "pspnet",
    "sanet",
    "sca",
)


def with_head(head: str, depth: int, shape: Shape) -> config_dict.ConfigDict:
  """Returns a config of a head with its default options and losses of its own.

  The backbone is a ResNet at output stride 8.
  """
  options = dict(name=head)
  if head == "sca":
    options["host"] = dict(name="fcn")
  if head == "mfnet":
    options["map_size"] = tuple(-(-side // 8) for side in shape.size)
  config = recipes.mmseg_20k(options)
  config.model.backbone.depth = depth
  del config.model.aux_head, config.loss.aux
  if head == "encnet":
    config.loss.se = common.presence("se_logits")
  return _shaped(config, shape)


def check_names(flag: str, names: Sequence[str], known: Iterable[str]) -> None:
  """Raises a `UserError` for a name that a flag does not know."""
  known = sorted(known)
  for name in names:
    if name not in known:
      raise errors.UserError(
          f"--{flag}: unknown {name!r}; known: {', '.join(known)}"
      )


def _shaped(config, shape):
  config.model.dtype = shape.dtype
  set_modes(config, shape.remat, shape.num_chunks)
  if shape.size is not None:
    config.data.crop_size = shape.size
    config.batch_size = shape.batch
  config.optim = common.sgd(**SGD, schedule=dict(name="constant"))
  return config
