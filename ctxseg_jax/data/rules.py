"""What is wrong with a dataset as a whole.

The same rules serve `data.check`, which lists everything, and the preparation
of a user's own data, which refuses what would silently train to nonsense.
"""

import collections
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from ctxseg_jax.data import meanings
from ctxseg_jax.data import own_files
from ctxseg_jax.data import scan as scan_lib
from ctxseg_jax.data import spec as spec_lib

_NUM_LISTED = 8  # Names in a line.
_RARE = 0.1  # Share of labels that tell nothing of all.
_MANY_VALUES = 16  # Unknown values in one label that no mapping explains.


class Report:
  """What a dataset turned out to be, pair by pair and then as a whole.

  Attributes:
    faults: What is wrong, a line each.
    notes: What is worth a look in the dataset as a whole, a line each.
    file_notes: What is worth a look in files, a line each.
    proposals: What may be written in `classes.txt`.
    num_pairs: By split.
    pixels: int64 [256] by split, by train id or `ignore_label`.
    present: int64 [256] by split, how many labels hold each.
  """

  def __init__(
      self,
      spec: spec_lib.DatasetSpec,
      splits: Iterable[str],
      *,
      any_size: bool = False,
  ):
    """Begins a report.

    Args:
      spec: The dataset.
      splits: Their names.
      any_size: Whether a published dataset may be incomplete; a user's own may.
    """
    splits = list(splits)
    self.faults: list[str] = []
    self.notes: list[str] = [*spec.notes]
    self.file_notes: list[str] = []
    self.proposals: Sequence[meanings.Proposal] = ()
    self.num_pairs = dict.fromkeys(splits, 0)
    self.pixels = {split: np.zeros(256, np.int64) for split in splits}
    self.present = {split: np.zeros(256, np.int64) for split in splits}
    self._spec = spec
    self._may_lack = any_size or spec.is_own
    self._unknown = collections.Counter()
    self._num_odd = 0  # Labels with such values.
    self._seen = set()
    self._num_turned = 0
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
      self.file_notes.extend(scan.notes)
      self._num_turned += scan.is_turned
    if scan.digest is not None:
      same = self._splits_of.setdefault(scan.digest, {})
      same.setdefault(scan.identity, set()).add(split)
    if scan.known is not None:
      self.pixels[split] += scan.known
      self.present[split] += scan.known > 0
    self._unknown.update(scan.unknown)
    self._num_odd += bool(scan.unknown)

  def conclude(self) -> None:
    """Adds what all pairs together tell."""
    if self._num_turned:
      self.file_notes.insert(
          0,
          f"{self._spec.name}: {self._num_turned} of {len(self._seen)} images "
          "are turned or mirrored as their EXIF orientation says; their labels "
          "should be of the picture as viewers show it.",
      )
    for splits_of in self._splits_of.values():
      self._add_duplicates(splits_of)
    if self._spec.overlapping_splits:
      self._add_overlap()
    if self._spec.task == "segmentation":
      self._add_what_labels_tell()

  def _add_what_labels_tell(self) -> None:
    spec = self._spec
    total = sum(self.pixels.values(), np.zeros(256, np.int64))
    reading = None
    if spec.is_own:
      reading = meanings.read(spec, total, self._unknown)
    text, self.proposals = reading or ("", ())
    text = text or _suspicion(spec, total, self._unknown)
    shifted = "" if text else _shifted_down(spec, total)
    if shifted and spec.is_own:  # A small set may lack the class.
      self.notes.append(f"{spec.name}: {shifted}")
    elif text or shifted:
      # First, since the faults of the files may come from it, if not of few.
      is_rare = 0 < self._num_odd < _RARE * sum(self.num_pairs.values())
      place = len(self.faults) if is_rare else 0
      self.faults.insert(place, f"{spec.name}: {text or shifted}")
    elif total.any():  # Else nothing could be read.
      self._add_absent(total)

  def _add_overlap(self) -> None:
    count = sum(
        len(set().union(*splits_of.values())) > 1
        for splits_of in self._splits_of.values()
    )
    if count:
      self.notes.append(
          f"{self._spec.name}: {count} images are in several splits; results "
          "on them tell nothing of other images."
      )

  def _add_duplicates(self, splits_of: dict[str, set[str]]) -> None:
    (first, first_splits), *others = splits_of.items()
    for identity, splits in others:
      if first_splits == splits and len(splits) == 1:
        self.file_notes.append(
            f"{identity}: the same image as {first}, both in {min(splits)}."
        )
        continue
      if self._spec.overlapping_splits:
        continue
      remedy = "Remove it from one, or results on it mean nothing."
      if self._spec.is_own:
        remedy = own_files.OVERLAP_REMEDY
      self.faults.append(
          f"{identity}: in {', '.join(sorted(splits))}, the same image as "
          f"{first} in {', '.join(sorted(first_splits))}; expected each image "
          f"in one split. {remedy}"
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
        # The others train; but a published dataset is complete or it is not.
        (self.notes if self._may_lack else self.faults).append(
            f"{spec.name}: {len(ids)} of {spec.num_classes} classes are not in "
            f"{where}: {names}; expected each, or it can neither be learnt nor "
            "scored. Add labels with them, or take them out of the classes."
        )


def _suspicion(
    spec: spec_lib.DatasetSpec,
    known: np.ndarray,
    unknown: collections.Counter,
) -> str:
  """Returns what the labels look like that was done to all of them, if so."""
  raw_ids = np.flatnonzero(spec.label_map != spec.ignore_label)
  values = sorted(v for v in unknown if isinstance(v, int))
  if spec.values:
    return _between(spec, values)
  missing = [i for i in range(spec.num_classes) if not known[i]]
  first, last = (spec.label_map[i] for i in (raw_ids[0], raw_ids[-1]))
  ignored = known[spec.ignore_label] + unknown[spec.ignore_label]
  expected = _expected(spec)
  if values == [raw_ids[-1] + 1] and missing[:1] == [first]:
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
  if len(values) > 1 and set(values) <= {*map(meanings.gray, spec.palette)}:
    return (
        f"label values {spec_lib.ranges(values)} are the brightness "
        f"of the classes' colours; {expected}. Save ids, or the colours "
        "themselves, but not their conversion to gray."
    )
  return _between(spec, values)


def _between(spec: spec_lib.DatasetSpec, values: Sequence[int]) -> str:
  if len(values) < _MANY_VALUES:
    return ""
  return (
      f"{len(values)} label values between and beyond the classes, as after "
      f"resizing with interpolation or saving as JPEG; {_expected(spec)}. Make "
      "the labels again, resizing by nearest neighbour."
  )


def _shifted_down(spec: spec_lib.DatasetSpec, known: np.ndarray) -> str:
  raw_id = np.flatnonzero(spec.label_map != spec.ignore_label)[-1]
  last = spec.label_map[raw_id]
  missing = np.flatnonzero(known[: spec.num_classes] == 0).tolist()
  if spec.values or missing != [last] or not known[spec.ignore_label]:
    return ""
  return (
      f"id {raw_id} ({spec.class_names[last]}) is in no label and "
      f"{spec.ignore_label} is in some, so all ids look shifted down by one; "
      f"{_expected(spec)}. Use the labels as they were, or take the class out "
      "of the list."
  )


def _expected(spec: spec_lib.DatasetSpec) -> str:
  raw_ids = np.flatnonzero(spec.label_map != spec.ignore_label).tolist()
  return f"expected {spec_lib.ranges(raw_ids)} for the classes"
