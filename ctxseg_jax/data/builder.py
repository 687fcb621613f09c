"""Writes a dataset to array_record files, in the way tfds opens them.

The generator-based builder of tfds holds a split in memory up to 1 GB and then
takes TensorFlow to write temporary files, in order to shuffle. Here examples
keep their order, and each goes to its file as it comes.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import types
from typing import Any

from array_record.python import array_record_module
import numpy as np
import tensorflow_datasets as tfds

from ctxseg_jax import errors
from ctxseg_jax import progress
from ctxseg_jax.data import finding
from ctxseg_jax.data import images
from ctxseg_jax.data import label_png
from ctxseg_jax.data import rules
from ctxseg_jax.data import scan
from ctxseg_jax.data import spec as spec_lib

FORMAT = "array_record"
# A file is closed when it has grown to this size.
_SHARD_BYTES = 256 << 20


def features(spec: spec_lib.DatasetSpec) -> tfds.features.FeaturesDict:
  """Returns what the record of an example consists of."""
  names = list(spec.class_names)
  label = tfds.features.ClassLabel(names=names)
  if spec.task == "segmentation":
    label = tfds.features.LabeledImage(
        labels=names, shape=(None, None, 1), encoding_format="png"
    )
  image = tfds.features.Image(shape=(None, None, 3))
  name = tfds.features.Text()
  return tfds.features.FeaturesDict(dict(image=image, label=label, name=name))


class _Info(tfds.core.DatasetInfo):

  def initialize_from_bucket(self):
    """Does nothing: tfds asks its server and leaves an empty folder in /tmp."""


# One class serves every dataset: no entry of tfds's registry.
class Builder(tfds.core.DatasetBuilder, skip_registration=True):
  """Packs the examples of a specification."""

  VERSION = tfds.core.Version("2.0.0")  # Of what is stored.

  def __init__(
      self,
      spec: spec_lib.DatasetSpec,
      items: Mapping[str, Sequence[Any]],
      data_dir: str | os.PathLike,
  ):
    """Prepares to write `items`, which `spec.find` returned."""
    self.name = spec.name
    self._spec = spec
    self._items = items
    self._report = rules.Report(spec, items)
    super().__init__(data_dir=data_dir)

  def write(self) -> list[str]:
    """Writes all splits, or nothing; returns `rules.Report.notes`.

    Raises:
      UserError: An example, or a user's own data as a whole, is faulty.
    """
    self.download_and_prepare(file_format=FORMAT)
    return self._report.notes

  def _make_download_manager(self, **kwargs):
    # Nothing is downloaded, and tfds's own one makes folders for it.
    return types.SimpleNamespace(downloaded_size=0)

  def _info(self) -> tfds.core.DatasetInfo:
    return _Info(
        builder=self,
        description=self._spec.description,
        features=features(self._spec),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(splits={}),
    )

  def _download_and_prepare(self, dl_manager, download_config):
    del dl_manager, download_config
    splits = [self._write_split(name, i) for name, i in self._items.items()]
    if self._spec.is_own:
      self._report.conclude()
      finding.refuse(self._report.faults)
    self.info.set_splits(tfds.core.SplitDict(splits))

  def _as_dataset(self, *args, **kwargs):
    raise NotImplementedError("array_record is read by as_data_source.")

  def _write_split(
      self, split: str, items: Sequence[Any]
  ) -> tfds.core.SplitInfo:
    template = tfds.core.ShardedFileTemplate(
        data_dir=self.data_path,
        dataset_name=self.name,
        split=split,
        filetype_suffix=FORMAT,
    )
    pixels, sizes = np.zeros(256, np.int64), []
    shards = _Shards(template)
    with progress.shown(f"{self.name}/{split}") as report:
      for count, item in enumerate(items, start=1):
        report(count, len(items))
        try:
          example = self._spec.read(self._spec, item)
          if self._spec.is_own:  # Others were looked at when published.
            found = scan.scan_example(self._spec, example, item)
            self._report.add(split, found)
        except errors.UserError as error:
          if not self._spec.is_own:
            raise
          # The others tell what is wrong with all, such as values of masks.
          self._report.add(split, scan.faulty(item, error))
          continue
        # The one label of an image counts as a pixel.
        pixels += np.bincount(example.label.ravel(), minlength=256)
        sizes.append(images.image_size(example.image, example.name))
        label = example.label
        label = label_png.encode(label) if label.ndim else int(label)
        record = dict(image=example.image, label=label, name=example.name)
        shards.write(self.info.features.serialize_example(record))
    shards.close()
    # All that `records` has to know of a split before it reads any.
    self.info.metadata["splits"][split] = {
        "shard_lengths": shards.lengths,
        "sizes": sizes,
        "label_pixels": pixels.tolist(),
    }
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=shards.lengths,
        num_bytes=shards.num_bytes,
        filename_template=template,
    )


class _Shards:
  """Writes records to files that take their names when all are there."""

  def __init__(self, template: tfds.core.ShardedFileTemplate):
    self.lengths = []  # Number of records in each file so far.
    self.num_bytes = 0  # Of all records so far.
    self._template = template
    self._paths = []
    self._writer = None
    self._room = 0

  def write(self, record: bytes) -> None:
    if self._room <= 0:
      if self._writer is not None:
        self._writer.close()
      name = f"{self._template.split}.{len(self._paths)}.part"
      self._paths.append(self._template.data_dir / name)
      # One record a group: they are read one by one.
      self._writer = array_record_module.ArrayRecordWriter(
          os.fspath(self._paths[-1]), "group_size:1"
      )
      self._room = _SHARD_BYTES
      self.lengths.append(0)
    self._writer.write(record)
    self.lengths[-1] += 1
    self.num_bytes += len(record)
    self._room -= len(record)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()
    name = self._template.sharded_filepath
    for i, path in enumerate(self._paths):
      path.rename(name(shard_index=i, num_shards=len(self._paths)))
