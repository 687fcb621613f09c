"""Datasets, by the name used in configs and on the command line."""

from collections.abc import Mapping
from typing import Any

from ctxseg_jax import settings
from ctxseg_jax.data import custom
from ctxseg_jax.data import spec
from ctxseg_jax.data.datasets import ade20k
from ctxseg_jax.data.datasets import camvid
from ctxseg_jax.data.datasets import cifar10
from ctxseg_jax.data.datasets import cifar10_stand_in
from ctxseg_jax.data.datasets import cityscapes
from ctxseg_jax.data.datasets import coco_stuff164k
from ctxseg_jax.data.datasets import coco_voc21
from ctxseg_jax.data.datasets import context_scenes
from ctxseg_jax.data.datasets import pcontext
from ctxseg_jax.data.datasets import voc2012

DATASETS = {
    "ade20k": ade20k.SPEC,
    "camvid": camvid.SPEC,
    "cifar10": cifar10.SPEC,
    "cifar10_stand_in": cifar10_stand_in.SPEC,
    "cityscapes": cityscapes.SPEC,
    "coco_stuff164k": coco_stuff164k.SPEC,
    "coco_voc21": coco_voc21.SPEC,
    "context_scenes": context_scenes.SPEC,
    "pcontext59": pcontext.SPEC_59,
    "pcontext60": pcontext.SPEC_60,
    "voc2012": voc2012.SPEC,
}


def lookup(name: str, where: str = "--dataset") -> spec.DatasetSpec:
  """Returns a published dataset by name.

  Args:
    name: A key of `DATASETS`.
    where: The flag or key that the name is from, for the message.

  Raises:
    UserError: There is none of this name.
  """
  # A user's own is in the list of names, but a folder makes its specification.
  return settings.lookup({**DATASETS, custom.NAME: None}, name, where)


def from_config(section: Mapping[str, Any]) -> spec.DatasetSpec:
  """Returns the dataset of the section `data` of a config.

  A user's own is told by its `spec`, if the config was resolved, so that its
  folder need not be there; else by the folder `root`.

  Raises:
    UserError: The name is unknown, or the folder faulty.
  """
  settings.check_keys(section, section, "data", required=("name",))
  if section["name"] != custom.NAME:
    return lookup(section["name"], "config: data.name")
  root = section.get("root", "")
  if section.get("spec"):
    return custom.from_record(section["spec"], root)
  return custom.from_folder(root)


def resolve(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the section `data` with all that has to outlive a folder."""
  if section.get("name") != custom.NAME:
    return dict(section)
  fresh = {key: value for key, value in section.items() if key != "spec"}
  return fresh | {"spec": custom.to_record(from_config(fresh))}
