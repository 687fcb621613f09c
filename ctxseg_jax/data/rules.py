"""What is wrong with a dataset as a whole.

The same rules serve `data.check`, which lists everything, and the preparation
of a user's own data, which refuses what would silently train to nonsense.
"""

from collections.abc import Iterable

import numpy as np

from ctxseg_jax.data import scan as scan_lib
from ctxseg_jax.data import spec as spec_lib

_NUM_LISTED = 8  # Names in a line.
_MANY_VALUES = 16  # Unknown values in one label that no mapping explains.


class Report:
  """What a dataset turned out to be, pair by pair and then as a whole.

  Attributes:
    faults: What is wrong, a line each.
    absent: Lines on classes that no label holds: nothing can be learnt of them,
      but the others train all the same.
    notes: What is worth a look, a line each.
    num_pairs: By split.
    pixels: int64 [256] by split, by train id or `ignore_label`.
    present: int64 [256] by split, how many labels hold each.
  """

  def __init__(self, spec: spec_lib.DatasetSpec, splits: Iterable[str]):
    splits = list(splits)
    self.faults: list[str] = []
    self.absent: list[str] = []
    self.notes: list[str] = []
    self.num_pairs = dict.fromkeys(splits, 0)
    self.pixels = {split: np.zeros(256, np.int64) for split in splits}
    self.present = {split: np.zeros(256, np.int64) for split in splits}
    self._spec = spec
    self._unknown = np.zeros(256, np.int64)
    self._seen = set()
    self._num_turned = 0
    self._by_name = False  # Then no id can have been changed by mistake.
    # By digest the identities of the same pixels, by these their splits.
    self._splits_of: dict[bytes, dict[str, set[str]]] = {}

  def add(self, split: str, scan: scan_lib.Scan) -> None:
    """Adds a pair of a split."""
    self.num_pairs[split] += 1
    # A pair in two splits, such as train and trainval, is reported once.
    if scan.identity not in self._seen:
      self._seen.add(scan.identity)
      if scan.fault:
        self.faults.append(scan.fault)
      self.notes.extend(scan.notes)
      self._num_turned += scan.is_turned
      self._by_name |= scan.by_name
    if scan.digest is not None:
      same = self._splits_of.setdefault(scan.digest, {})
      same.setdefault(scan.identity, set()).add(split)
    if scan.known is not None:
      self.pixels[split] += scan.known
      self.present[split] += scan.known > 0
    if scan.unknown is not None:
      self._unknown += scan.unknown

  def conclude(self) -> None:
    """Adds what all pairs together tell."""
    if self._num_turned:
      self.notes.insert(
          0,
          f"{self._spec.name}: {self._num_turned} of {len(self._seen)} images "
          "are turned or mirrored as their EXIF orientation says; their labels "
          "should be of the picture as viewers show it.",
      )
    for splits_of in self._splits_of.values():
      self._add_duplicates(splits_of)
    if self._spec.task == "segmentation":
      total = sum(self.pixels.values(), np.zeros(256, np.int64))
      suspicion = _suspicion(self._spec, total, self._unknown)
      if suspicion and not self._by_name:
        # First, since it may be what the faults of the files come from.
        self.faults.insert(0, f"{self._spec.name}: {suspicion}")
      elif total.any():  # Else nothing could be read.
        self._add_absent(total)

  def _add_duplicates(self, splits_of: dict[str, set[str]]) -> None:
    (first, first_splits), *others = splits_of.items()
    for identity, splits in others:
      if first_splits == splits and len(splits) == 1:
        self.notes.append(
            f"{identity}: the same image as {first}, both in {min(splits)}."
        )
        continue
      self.faults.append(
          f"{identity}: in {', '.join(sorted(splits))}, the same image as "
          f"{first} in {', '.join(sorted(first_splits))}; expected each image "
          "in one split. Remove it from one, or results on it mean nothing."
      )

  def _add_absent(self, total: np.ndarray) -> None:
    spec = self._spec
    train = self.pixels.get("train", total)
    known, trained = (
        pixels[: spec.num_classes] > 0 for pixels in (total, train)
    )
    absent = {"any label of train": known & ~trained, "any label": ~known}
    for where, is_absent in absent.items():
      ids = np.flatnonzero(is_absent)
      if ids.size:
        names = ", ".join(spec.class_names[i] for i in ids[:_NUM_LISTED])
        if len(ids) > _NUM_LISTED:
          names += f" and {len(ids) - _NUM_LISTED} more"
        self.absent.append(
            f"{spec.name}: {len(ids)} of {spec.num_classes} classes are not in "
            f"{where}: {names}; expected each, or it can neither be learnt nor "
            "scored. Add labels with them, or take them out of the classes."
        )


def _suspicion(
    spec: spec_lib.DatasetSpec, known: np.ndarray, unknown: np.ndarray
) -> str:
  """Returns what the labels look like that was done to all of them, if so."""
  raw_ids = np.flatnonzero(spec.label_map != spec.ignore_label)
  values = np.flatnonzero(unknown)
  missing = [i for i in range(spec.num_classes) if not known[i]]
  first, last = (spec.label_map[i] for i in (raw_ids[0], raw_ids[-1]))
  ignored = known[spec.ignore_label] + unknown[spec.ignore_label]
  expected = f"expected {spec_lib.ranges(raw_ids.tolist())} for the classes"
  grays = {(19595 * r + 38470 * g + 7471 * b + 32768) >> 16
           for r, g, b in spec.palette}  # fmt: skip
  if values.tolist() == [raw_ids[-1] + 1] and missing[:1] == [first]:
    return (
        f"id {raw_ids[0]} ({spec.class_names[first]}) is in no label and "
        f"{values[0]} is in some, so all ids look shifted up by one; "
        f"{expected}. Subtract one from every id."
    )
  if spec.ignore_label - 1 in values and last in missing:
    return (
        f"ids up to {raw_ids[-1] - 1} and {values[-1]}, as if one had been "
        f"subtracted from every id, from that of ignored pixels, too; "
        f"{expected}. Use the labels as they were."
    )
  if ignored and not len(values) and len(missing) >= spec.num_classes - 1:
    names = [n for i, n in enumerate(spec.class_names) if i not in missing]
    held = " and ".join([*names, str(spec.ignore_label)])
    return (
        f"all labels hold {held} only, so {spec.ignore_label} looks used as a "
        f"class, but it means ignored; {expected}. Write the class's id "
        f"instead of {spec.ignore_label}."
    )
  if ignored and missing == [last]:
    return (
        f"id {raw_ids[-1]} ({spec.class_names[last]}) is in no label and "
        f"{spec.ignore_label} is in some, so all ids look shifted down by one; "
        f"{expected}. Use the labels as they were, or take the class out of "
        "the list."
    )
  if len(values) > 1 and set(values.tolist()) <= grays:
    return (
        f"label values {spec_lib.ranges(values.tolist())} are the brightness "
        f"of the classes' colours; {expected}. Save ids, or the colours "
        "themselves, but not their conversion to gray."
    )
  if len(values) >= _MANY_VALUES:
    return (
        f"{len(values)} label values between and beyond the classes, as after "
        f"resizing with interpolation or saving as JPEG; {expected}. Make the "
        "labels again, resizing by nearest neighbour."
    )
  return ""
