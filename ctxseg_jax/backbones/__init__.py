"""Backbones, by the name used in configs."""

from ctxseg_jax.backbones import cifar_resnet
from ctxseg_jax.backbones import efficientnet
from ctxseg_jax.backbones import resnet
from ctxseg_jax.backbones import shallow
from ctxseg_jax.backbones import vgg

BACKBONES = {
    "cifar_resnet": cifar_resnet.CifarResNet,
    "efficientnet": efficientnet.EfficientNet,
    "resnet": resnet.ResNet,
    "shallow": shallow.ShallowNet,
    "vgg16": vgg.VGG16,
}
