"""Datasets, by the name used in configs and on the command line."""

from ctxseg_jax import settings
from ctxseg_jax.data import ade20k
from ctxseg_jax.data import camvid
from ctxseg_jax.data import cifar10
from ctxseg_jax.data import cifar10_stand_in
from ctxseg_jax.data import cityscapes
from ctxseg_jax.data import coco_stuff164k
from ctxseg_jax.data import context_scenes
from ctxseg_jax.data import pcontext
from ctxseg_jax.data import spec
from ctxseg_jax.data import voc2012

DATASETS = {
    "ade20k": ade20k.SPEC,
    "camvid": camvid.SPEC,
    "cifar10": cifar10.SPEC,
    "cifar10_stand_in": cifar10_stand_in.SPEC,
    "cityscapes": cityscapes.SPEC,
    "coco_stuff164k": coco_stuff164k.SPEC,
    "context_scenes": context_scenes.SPEC,
    "pcontext59": pcontext.SPEC_59,
    "pcontext60": pcontext.SPEC_60,
    "voc2012": voc2012.SPEC,
}


def lookup(name: str, where: str = "--dataset") -> spec.DatasetSpec:
  """Returns a dataset by name.

  Args:
    name: A key of `DATASETS`.
    where: The flag or key that the name is from, for the message.

  Raises:
    UserError: There is none of this name.
  """
  return settings.lookup(DATASETS, name, where)
