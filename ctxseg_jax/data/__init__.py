"""Datasets, by the name used in configs and on the command line."""

from ctxseg_jax.data import camvid
from ctxseg_jax.data import context_scenes

DATASETS = {
    "camvid": camvid.SPEC,
    "context_scenes": context_scenes.SPEC,
}
