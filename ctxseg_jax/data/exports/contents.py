"""What a folder of a user's own data holds, and what its readers share.

The labels of an export become train ids when they are decoded. `classes.txt`,
where the folder has one, picks the classes by name and puts them in order, and
says nothing of values; the pixels of all others are ignored.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import colors as colors_lib
from ctxseg_jax.data import finding
from ctxseg_jax.data import masks
from ctxseg_jax.data import spec as spec_lib

IGNORE = classes_lib.IGNORE_LABEL
CLASSES_FILE = "classes.txt"
# What tools call the splits, in lower case and without a year.
_SPLITS = {
    **dict.fromkeys(("train", "training", "default"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What a file of other content than expected can raise.
_ODD = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError),
    *(TypeError, ValueError),
)


Decode = Callable[[pathlib.Path], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pair(finding.Pair):
  """A pair of an export; `decode` makes train ids [H, W] of the label file."""

  decode: Decode


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a folder holds.

  Attributes:
    classes: Of the dataset.
    found: The pairs.
    faults: A line for each file that cannot be used.
    notes: Lines on how it was understood.
    markers: The files, beside images and labels, that this depends on.
  """

  classes: classes_lib.Classes
  found: finding.Pairs
  faults: list[str]
  notes: Sequence[str] = ()
  markers: Sequence[pathlib.Path] = ()


def split_of(word: str) -> str | None:
  """Returns the split that an export calls `word`, such as `train2017`."""
  return _SPLITS.get(re.sub(r"\d+$", "", word.lower()))


def split_folders(root: pathlib.Path) -> dict[str, str]:
  """Returns the split of each folder in `root` that is named after one."""
  found = {}
  for name in finding.names_in(root) if os.path.isdir(root) else ():
    if split_of(name) and os.path.isdir(root / name):
      found[name] = split_of(name)
  return found


def choose(
    root: pathlib.Path,
    names: Iterable[str],
    palette: Mapping[str, classes_lib.Color] | None = None,
) -> tuple[classes_lib.Classes, dict[str, int], list[str]]:
  """Returns the classes, the train id of each name in the export, and notes.

  Args:
    root: The folder, maybe with `classes.txt`.
    names: Of the classes of the export, in its order.
    palette: Their colours, if the export has any.

  Raises:
    UserError: `classes.txt` is faulty or names others, or the names cannot be
      those of a dataset.
  """
  names = list(dict.fromkeys(names))
  path = root / CLASSES_FILE
  shown = ", ".join(names)[:200]
  if os.path.lexists(path):
    classes = classes_lib.read(path)
    # Colours of pictures may be given, but none that labels alone would hold.
    if classes.values or not {*classes.colors} <= {*classes.palette}:
      raise errors.UserError(
          f"{path}: says what labels hold, by = or {classes_lib.IGNORE_NAME}; "
          "expected names, with or without colours, since the export says what "
          "its labels hold. Remove = and what follows, and the line of "
          f"{classes_lib.IGNORE_NAME}: classes without a line are ignored."
      )
    for name in classes.names:
      if name not in names:
        raise errors.UserError(
            f"{path}: class {name!r} is none of the export's; expected some of "
            f"{shown}. Mend the name or remove the line."
        )
    ids = dict.fromkeys(names, IGNORE)
    ids |= {name: i for i, name in enumerate(classes.names)}
    left = ", ".join(n for n in names if ids[n] == IGNORE)
    notes = [f"{path}: leaves out {left[:200]}; their pixels are ignored."]
    return _of_ids(classes), ids, notes if left else []
  if not 2 <= len(names) <= IGNORE or not all(
      n.strip() and n.isprintable() for n in names
  ):
    raise errors.UserError(
        f"{root}: found the {len(names)} classes {shown!r}; expected 2 to "
        f"{IGNORE} names. Mend them in the tool and export again, or name the "
        f"classes to use in {path}, one per line."
    )
  colors = palette or {n: classes_lib.voc_color(i) for i, n in enumerate(names)}
  classes = classes_lib.Classes(
      names=tuple(names),
      palette=tuple(colors[name] for name in names),
      colors={},
  )
  return _of_ids(classes), {name: i for i, name in enumerate(names)}, []


def _of_ids(classes: classes_lib.Classes) -> classes_lib.Classes:
  """Returns classes whose labels hold ids, as those that were decoded do."""
  # With values that are told, `rules` suspects no shift where a class is rare.
  ids = (*range(len(classes.names)), IGNORE)
  return dataclasses.replace(
      classes, colors={}, values=tuple((i, i, i) for i in ids)
  )


def decoded(pairs: Iterable[finding.Pair], decode: Decode) -> list[Pair]:
  """Returns pairs whose labels are all decoded in one way."""
  return [Pair(**vars(pair), decode=decode) for pair in pairs]


def decode_by(
    table: Mapping[int, int],
    *,
    where: pathlib.Path,
    colors: Mapping[classes_lib.Color, int] | None = None,
) -> Decode:
  """Returns a decoder of masks whose values a table maps to train ids.

  Args:
    table: Train id or 255 by value; any other value is a fault.
    where: The file that the table is from.
    colors: Values by RGB colour, where masks may be RGB.
  """
  return functools.partial(_decode, table=table, where=where, colors=colors)


def read_json(path: pathlib.Path, what: str) -> Any:
  """Returns the content of a JSON file; `UserError` if it is none."""
  with reading(path, what):
    return json.loads(files.read_bytes(path, what=what))


@contextlib.contextmanager
def reading(path: pathlib.Path, what: str) -> Iterator[None]:
  """Turns what a file of other content raises into a `UserError`."""
  try:
    yield
  except _ODD as error:
    reason = " ".join(f"{type(error).__name__} {error}".split())[:100]
    raise errors.UserError(
        f"{files.printable(path)}: cannot be read ({reason}); expected {what}. "
        "Export it again."
    ) from error


def _decode(
    path: pathlib.Path,
    *,
    table: Mapping[int, int],
    where: pathlib.Path,
    colors: Mapping[classes_lib.Color, int] | None,
) -> np.ndarray:
  raw = masks.read(path, is_rgb=bool(colors))
  if raw.ndim == 3:
    try:
      raw = colors_lib.ids(
          raw, colors or {}, str(path), f"Export it again with {where.name}."
      )
    except spec_lib.UnknownValuesError as error:
      # It would be followed by what classes.txt may say, which is nothing here.
      raise errors.UserError(str(error)) from error
  values, inverse, counts = np.unique(
      raw, return_inverse=True, return_counts=True
  )
  for value, count in zip(values.tolist(), counts.tolist(), strict=True):
    if value not in table:
      raise errors.UserError(
          f"{path}: label value {value} in {count} pixels; expected those of "
          f"{where}. Export both again."
      )
  ids = np.array([table[value] for value in values.tolist()], np.uint8)
  return ids[inverse].reshape(raw.shape)
