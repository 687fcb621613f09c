"""Backbones, by the name used in configs."""

from ctxseg_jax.backbones import cifar_resnet
from ctxseg_jax.backbones import resnet
from ctxseg_jax.backbones import shallow

BACKBONES = {
    "cifar_resnet": cifar_resnet.CifarResNet,
    "resnet": resnet.ResNet,
    "shallow": shallow.ShallowNet,
}
