"""A user's own dataset: images, labels and a file of classes, without code.

A folder holds `classes.txt` (see `data.classes`) and images with labels, in one
of two layouts. Either they are in two folders,

    images/train/a.jpg  images/val/b.jpg  labels/train/a.png  labels/val/b.png

an image and its label having the same name, but for `_mask`, `_label`, `_gt` or
the like at the end of the label's. Or lists say what there is: a line of
`train.txt`, `val.txt` or `test.txt` (also in `splits/`) is an image and its
label, as paths in the folder, or the name of an image in `images/`. Without
subfolders and lists all is one split, `train`, of which slices can be taken.

Labels hold ids in one channel, gray or palette, with 255 for what is ignored;
or what `classes.txt` says, values or the colours of RGB.

Or the folder is an export of an annotation tool, see `data.exports`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import functools
import hashlib
import os
import pathlib
import re
from typing import Any

from absl import flags
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import exports
from ctxseg_jax.data import finding
from ctxseg_jax.data import images
from ctxseg_jax.data import masks
from ctxseg_jax.data import own_files
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.exports import contents as contents_lib

NAME = "custom"
CLASSES_FILE = contents_lib.CLASSES_FILE
LAYOUTS = own_files.LAYOUTS
# Of `options.DataOptions`, those that no other dataset has.
OPTIONS = ("root", "overlapping_splits", "spec")

_NAME_LENGTH = 60  # Characters of the folder in the name of the dataset.
_MEAN_SAMPLE = 32  # Images that the mean is taken of.
_REMEDY = (
    f"Say in {CLASSES_FILE} what the value means, as in car = 7 for a class or "
    "__ignore__ = 7, or mend the label."
)


def from_folder(
    root: str | os.PathLike[str], *, overlapping_splits: bool = False
) -> spec_lib.DatasetSpec:
  """Returns the specification of a folder.

  Its name is that of the folder with a digest of names, sizes and times of all
  files, so that what was prepared of it is never taken for what it has become.

  Args:
    root: The folder.
    overlapping_splits: Whether one image may be in several splits.

  Raises:
    UserError: It is not of a known layout, or a file of it is faulty.
  """
  root, contents = _find(root, overlapping_splits)
  name = re.sub(r"\W+", "_", root.resolve().name, flags=re.ASCII).lower()
  name = name.strip("_")[:_NAME_LENGTH] or NAME
  return make_spec(
      contents.classes,
      name=f"{name}_{_digest(root, contents)}",
      split_sizes={s: len(items) for s, items in contents.found.items()},
      mean=_mean(next(iter(contents.found.values()))),
      root=root,
      overlapping_splits=overlapping_splits,
      notes=contents.notes,
  )


def open_folder(
    root: pathlib.Path, *, overlapping_splits: bool = False
) -> contents_lib.Contents:
  """Returns what a folder holds, in our layouts or as an export.

  Args:
    root: The folder.
    overlapping_splits: Whether one image may be in several splits.

  Raises:
    UserError: It is not of a known layout, or its classes are faulty.
  """
  is_own = own_files.is_there(root) and os.path.lexists(root / CLASSES_FILE)
  contents = None if is_own else exports.read(root)
  if contents is None:
    found, faults = own_files.find(root)
    classes = classes_lib.read(root / CLASSES_FILE)
    contents = contents_lib.Contents(classes, found, faults)
  if not overlapping_splits:
    contents.faults.extend(
        finding.shared(
            contents.found, by="image", remedy=own_files.OVERLAP_REMEDY
        )
    )
  return contents


def make_spec(
    classes: classes_lib.Classes,
    *,
    name: str = NAME,
    split_sizes: Mapping[str, int] | None = None,
    mean: tuple[float, float, float] = spec_lib.IMAGENET_MEAN,
    root: str | os.PathLike[str] = "",
    overlapping_splits: bool = False,
    notes: Sequence[str] = (),
) -> spec_lib.DatasetSpec:
  """Returns the specification of a dataset of given classes, found in `root`.

  Its name has to be a valid name of a folder; the mean is RGB, 0-255.
  """
  ids = [(i, i, i) for i in range(len(classes.names))]
  label_map = np.full(1 << 16, classes_lib.IGNORE_LABEL, np.uint8)
  void_ids = []
  for first, last, index in classes.values or [*ids, (255, 255, 255)]:
    label_map[first : last + 1] = index
    if index == classes_lib.IGNORE_LABEL:
      void_ids += range(first, last + 1)
  return spec_lib.DatasetSpec(
      name=name,
      class_names=classes.names,
      palette=classes.palette,
      label_map=label_map,
      void_ids=tuple(void_ids),
      mean=mean,
      split_sizes=split_sizes or {},
      find=functools.partial(_find_again, root, name, overlapping_splits),
      read=read,
      needs_source=False,  # It has one already.
      description=f"Images and labels of {root}." if root else "",
      layouts=LAYOUTS,
      remedy=_REMEDY,
      is_own=True,
      colors=classes.colors,
      values=classes.values,
      overlapping_splits=overlapping_splits,
      notes=notes,
  )


def to_record(spec: spec_lib.DatasetSpec) -> dict[str, Any]:
  """Returns what `from_record` makes the specification of, as JSON holds it."""
  record = {
      "name": spec.name,
      "class_names": list(spec.class_names),
      "palette": [list(color) for color in spec.palette],
      "colors": [[*color, index] for color, index in spec.colors.items()],
      "mean": list(spec.mean),
      "split_sizes": dict(spec.split_sizes),
  }
  if spec.values:  # Records of runs before there were any have none.
    record["values"] = list(map(list, spec.values))
  return record


def from_record(
    record: Mapping[str, Any],
    root: str | os.PathLike[str],
    *,
    overlapping_splits: bool = False,
) -> spec_lib.DatasetSpec:
  """Returns a specification from what `to_record` kept of it.

  The folder is looked at only if the dataset is to be prepared.

  Raises:
    UserError: The record was changed to something that is none.
  """
  try:
    names, name = record["class_names"], record["name"]
    # It becomes a folder; another one than ours may not be written to.
    if not re.fullmatch(r"\w{1,100}", name, re.ASCII):
      raise ValueError(f"the name {name!r}")
    if not isinstance(names, list) or not all(
        isinstance(n, str) and n.isprintable() for n in names
    ):
      raise ValueError(f"the classes {names!r}")
    return make_spec(
        classes_lib.Classes(
            names=tuple(names),
            palette=tuple(map(tuple, record["palette"])),
            colors={(r, g, b): i for r, g, b, i in record["colors"]},
            values=tuple((a, b, i) for a, b, i in record.get("values", ())),
        ),
        name=name,
        split_sizes=dict(record["split_sizes"]),
        mean=tuple(map(float, record["mean"])),
        root=root,
        overlapping_splits=overlapping_splits,
    )
  except (LookupError, TypeError, ValueError, ArithmeticError) as error:
    reason = f"{type(error).__name__} {error}"[:200]
    raise errors.UserError(
        f"config: data.spec: {reason}; expected what train.py wrote there. "
        "Restore config.json, or train again."
    ) from error


def read(spec: spec_lib.DatasetSpec, pair: finding.Pair) -> spec_lib.Example:
  """Reads a pair of an export, or one whose label holds what classes say."""
  decode = functools.partial(masks.decode, spec)
  if isinstance(pair, contents_lib.Pair):
    decode = pair.decode
  return pairs.read(spec, pair, decode=decode, is_mapped=True)


def define_overlap_flag() -> None:
  """Defines the flag of commands that read a user's own data."""
  flags.DEFINE_bool(
      "overlapping_splits",
      False,
      "Of your own data, accept images that are in several splits.",
  )


def check_overlap_flag(values: flags.FlagValues, is_own: bool) -> None:
  """Refuses the flag for other data."""
  if values.overlapping_splits and not is_own:
    raise errors.UserError(
        "--overlapping_splits: goes with your own data only; expected "
        f"--dataset={NAME}. Leave it out."
    )


def absolute(root: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a folder of the user's so that it is found from anywhere."""
  # Not its `resolve`: where a link leads may change.
  return pathlib.Path(os.path.abspath(os.path.expanduser(root)))


def _find(
    root: str | os.PathLike[str], overlapping_splits: bool
) -> tuple[pathlib.Path, contents_lib.Contents]:
  if not str(root):
    raise errors.UserError(
        "config: data.root: missing; expected your folder, with "
        f"{LAYOUTS}. Pass --config.data.root=DIR."
    )
  root = absolute(root)
  contents = open_folder(root, overlapping_splits=overlapping_splits)
  finding.refuse(contents.faults)
  return root, contents


def _find_again(
    root: str | os.PathLike[str],
    name: str,
    overlapping_splits: bool,
    source: None,
    *,
    any_size: bool,
) -> finding.Pairs:
  """The `find` of a specification: its folder has to be what it was."""
  del source, any_size
  root, contents = _find(root, overlapping_splits)
  if not name.endswith(_digest(root, contents)):
    raise errors.UserError(
        f"{root}: files have changed since {name} was made of it; expected the "
        "same. Train in another --workdir to use them as they are."
    )
  return contents.found


def _digest(root: pathlib.Path, contents: contents_lib.Contents) -> str:
  digest = hashlib.sha256()
  for path in (root / CLASSES_FILE, *contents.markers):
    if os.path.lexists(path):
      digest.update(files.read_bytes(path))
  for split, items in contents.found.items():
    for pair in items:
      for path in (pair.image, pair.label):
        with files.open_regular(path, what="an image file") as file:
          stat = os.fstat(file.fileno())
        line = f"{split} {path.relative_to(root)} {stat.st_size}"
        digest.update(f"{line} {stat.st_mtime_ns}\n".encode())
  return digest.hexdigest()[:10]


def _mean(items: list[finding.Pair]) -> tuple[float, float, float]:
  """Returns the mean RGB of images spread over a split."""
  chosen = items[:: -(-len(items) // _MEAN_SAMPLE)]
  means = [images.decode_image(p.image).mean(axis=(0, 1)) for p in chosen]
  return tuple(np.mean(means, axis=0).round(2).tolist())
