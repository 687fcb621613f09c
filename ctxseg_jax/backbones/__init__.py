"""Backbones, by the name used in configs."""

from ctxseg_jax.backbones import resnet
from ctxseg_jax.backbones import shallow
from ctxseg_jax.backbones import vgg

BACKBONES = {
    "resnet": resnet.ResNet,
    "shallow": shallow.ShallowNet,
    "vgg16": vgg.VGG16,
}
