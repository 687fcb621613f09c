"""The projects whose weights we read, each with its names for what we have."""

from ctxseg_jax.pretrained.sources import efficientnet_lite
from ctxseg_jax.pretrained.sources import huggingface
from ctxseg_jax.pretrained.sources import mmseg
from ctxseg_jax.pretrained.sources import own
from ctxseg_jax.pretrained.sources import pytorch_encoding
from ctxseg_jax.pretrained.sources import timm
from ctxseg_jax.pretrained.sources import torchvision

SOURCES = {
    "ctxseg_jax": own.SOURCE,
    "efficientnet_lite": efficientnet_lite.SOURCE,
    "huggingface": huggingface.SOURCE,
    "mmseg": mmseg.SOURCE,
    "pytorch_encoding": pytorch_encoding.SOURCE,
    "timm": timm.SOURCE,
    "torchvision": torchvision.SOURCE,
}
