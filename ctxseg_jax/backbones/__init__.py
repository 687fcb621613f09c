"""Backbones, by the name used in configs."""

from ctxseg_jax.backbones import efficientnet
from ctxseg_jax.backbones import resnet
from ctxseg_jax.backbones import shallow

BACKBONES = {
    "efficientnet": efficientnet.EfficientNet,
    "resnet": resnet.ResNet,
    "shallow": shallow.ShallowNet,
}
