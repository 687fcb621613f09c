"""Datasets, by the name used in configs and on the command line."""

from ctxseg_jax.data import camvid
from ctxseg_jax.data import cifar10
from ctxseg_jax.data import cifar10_stand_in
from ctxseg_jax.data import context_scenes

DATASETS = {
    "camvid": camvid.SPEC,
    "cifar10": cifar10.SPEC,
    "cifar10_stand_in": cifar10_stand_in.SPEC,
    "context_scenes": context_scenes.SPEC,
}
