"""Backbones, by the name used in configs."""

from ctxseg_jax.models.backbones import cifar_resnet
from ctxseg_jax.models.backbones import efficientnet
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.models.backbones import shallow
from ctxseg_jax.models.backbones import vgg

BACKBONES = {
    "cifar_resnet": cifar_resnet.CifarResNet,
    "efficientnet": efficientnet.EfficientNet,
    "resnet": resnet.ResNet,
    "shallow": shallow.ShallowNet,
    "vgg16": vgg.VGG16,
}
