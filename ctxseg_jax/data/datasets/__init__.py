"""Datasets, by the name used in configs and on the command line."""

from collections.abc import Mapping
from typing import Any

from ctxseg_jax import schema
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
  """Returns a published dataset; `where` names the flag or key in messages.

  Raises:
    UserError: There is none of this name.
  """
  # A user's own is in the list of names, but a folder makes its specification.
  return schema.lookup({**DATASETS, custom.NAME: None}, name, where)


def open_spec(
    name: str,
    root: str = "",
    record: Mapping[str, Any] | None = None,
    *,
    overlapping_splits: bool = False,
) -> spec.DatasetSpec:
  """Returns the specification of the dataset that a config names.

  Args:
    name: A key of `DATASETS`, or "custom" for a user's own.
    root: The folder of a user's own; not looked at if there is a record.
    record: What `custom.to_record` made of the folder.
    overlapping_splits: Whether images of a user's own may be in several splits.

  Raises:
    UserError: The name is unknown, or the folder or the record faulty.
  """
  if name != custom.NAME:
    return lookup(name, "config: data.name")
  if record is not None:
    return custom.from_record(
        record, root, overlapping_splits=overlapping_splits
    )
  return custom.from_folder(root, overlapping_splits=overlapping_splits)
