r"""Looks at every image and label of a dataset before the first step.

  python -m ctxseg_jax.data.check --images DIR --labels DIR
  python -m ctxseg_jax.data.check --dataset custom --source DIR
  python -m ctxseg_jax.data.check --dataset camvid --data_dir data

Files are decoded in full. Each fault is a line: the file, what was found and
expected, and the remedy; then comes a table of how much of each class there is.
Exit codes: 0 no fault, 2 faults. Notes are worth a look, but no faults. Where
labels of your own hold other values than ids, it prints what `classes.txt` may
say of them.

A JPEG with changed bytes decodes to other pixels, which nothing in it shows.
--manifest FILE writes the SHA-256 of every file where FILE is not there (as
sha256sum does), and compares where it is.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import os
import pathlib
import re
from typing import Any

from absl import flags

from ctxseg_jax import columns
from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import own_files
from ctxseg_jax.data import rules
from ctxseg_jax.data import scan as scan_lib
from ctxseg_jax.data import spec as spec_lib

_NAMES = ", ".join([custom.NAME, *sorted(datasets.DATASETS)])
_FLAGS = {
    "dataset": f"One of {_NAMES}; with --source or --data_dir.",
    "source": "Your folder of the dataset.",
    "data_dir": "Folder of all prepared datasets.",
    "images": "Folder of images, instead of a dataset; with --labels.",
    "labels": "Folder of labels of the same names.",
    "classes": "File of a class per line; default: that beside the images.",
    "manifest": "File of SHA-256 sums, to write or to compare with.",
}
# The flags of each use: those that it needs, and those that go with them.
_USES = (
    ({"images", "labels"}, {"classes", "manifest"}),
    ({"dataset", "source"}, {"manifest"}),
    ({"dataset", "data_dir"}, set()),
)
# Specification, items by split, how to read them, and faults so far.
_Opened = tuple[
    spec_lib.DatasetSpec,
    Mapping[str, Sequence[Any]],
    scan_lib.Read,
    list[str],
]


def check(
    values: flags.FlagValues,
) -> tuple[spec_lib.DatasetSpec, rules.Report]:
  """Scans all pairs that the flags name, and looks at what they are together.

  Raises:
    UserError: There is nothing to scan, or a process was killed.
  """
  _check_flags(values)
  custom.check_overlap_flag(values, values.dataset in (None, custom.NAME))
  spec, items, read, faults = _open(values)
  report = rules.Report(spec, items, any_size=values.any_size)
  report.faults += faults
  splits = [split for split, of_split in items.items() for _ in of_split]
  flat = [item for of_split in items.values() for item in of_split]
  scans = scan_lib.scan_all(spec, flat, read, values.num_workers)
  for split, scan in zip(splits, scans, strict=True):
    report.add(split, scan)
  report.conclude()
  if values.manifest is not None:
    _compare(pathlib.Path(values.manifest).expanduser(), flat, report)
  return spec, report


def table(spec: spec_lib.DatasetSpec, report: rules.Report) -> str:
  """Returns how many pairs there are and the share of each class, by split."""
  splits = list(report.num_pairs)
  rows = [["", *splits, "labels with it"]]
  names = [*enumerate(spec.class_names), (spec.ignore_label, "(ignored)")]
  for i, name in names:
    row = [name]
    for pixels in report.pixels.values():
      row.append(f"{pixels[i] / max(1, pixels.sum()):.2%}")
    rows.append([*row, str(sum(p[i] for p in report.present.values()))])
  counts = report.num_pairs.values()
  rows.append(["pairs", *map(str, counts), str(sum(counts))])
  sides = "<" + ">" * (len(splits) + 1)
  return "\n".join(columns.align(rows, sides, total=True))


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  spec, report = check(values)
  notes = [*report.notes, *report.file_notes]
  for word, found in (("note", notes), ("fault", report.faults)):
    for line in found[: values.max_lines or None]:
      print(f"{word}: {line}")
    more = len(found) - values.max_lines
    if more > 0 and values.max_lines:
      print(f"{word}: {more} more; --max_lines=0 shows all")
  print(table(spec, report))
  for condition, lines in report.proposals:
    print(f"\n{custom.CLASSES_FILE}, if {condition}:\n")
    print("\n".join(lines) + "\n")
  num_pairs = sum(report.num_pairs.values())
  if report.faults:
    count = len(report.faults)
    raise errors.UserError(
        f"{count} fault{'s' * (count > 1)} in {num_pairs} pairs of {spec.name},"
        " listed on standard output; mend all, then check again"
    )
  print(f"no fault in {num_pairs} pairs of {spec.name}")


def _open(values: flags.FlagValues) -> _Opened:
  if values.data_dir is not None:
    return _open_prepared(datasets.lookup(values.dataset), values.data_dir)
  if values.dataset not in (None, custom.NAME):
    return _open_source(datasets.lookup(values.dataset), values)
  overlap = {"overlapping_splits": values.overlapping_splits}
  if values.dataset is not None:
    contents = custom.open_folder(custom.absolute(values.source), **overlap)
    spec = custom.make_spec(contents.classes, notes=contents.notes, **overlap)
    return spec, contents.found, scan_lib.read_pair, contents.faults
  folders = map(custom.absolute, (values.images, values.labels))
  items, faults = own_files.find_in_folders(*folders)
  root = pathlib.Path(values.images).expanduser().resolve().parent
  classes_file = root / custom.CLASSES_FILE
  if values.classes is not None:
    classes_file = custom.absolute(values.classes)
  spec = custom.make_spec(classes_lib.read(classes_file), **overlap)
  return spec, items, scan_lib.read_pair, faults


def _check_flags(values: flags.FlagValues) -> None:
  """Refuses flags that do not go together."""
  given = {name for name in _FLAGS if values[name].value is not None}
  own_prepared = values.dataset == custom.NAME and "data_dir" in given
  if own_prepared or not any(
      needed <= given <= needed | optional for needed, optional in _USES
  ):
    found = " ".join(f"--{name}" for name in sorted(given))
    raise errors.UserError(
        f"found {found or 'no flags'}; expected --images and --labels, and "
        "--classes if need be; or --dataset and --source, the files as you "
        "have them; or --dataset and --data_dir, the folder of prepared "
        f"datasets, but not of {custom.NAME}. --manifest goes with the first "
        "two. --help has more."
    )


def _open_source(
    spec: spec_lib.DatasetSpec, values: flags.FlagValues
) -> _Opened:
  # It takes tfds, which is half a second that not every use pays.
  from ctxseg_jax.data import packing

  try:
    items = packing.find(spec, values.source, any_size=values.any_size)
    return spec, items, scan_lib.read_pair, []
  except errors.UserError as error:
    # What there is can be scanned all the same, if it is of the layout.
    items = packing.find(spec, values.source, any_size=True)
    return spec, items, scan_lib.read_pair, [str(error)]


def _open_prepared(spec: spec_lib.DatasetSpec, data_dir: str) -> _Opened:
  from ctxseg_jax.data import packing
  from ctxseg_jax.data import records

  if not packing.is_prepared(spec, data_dir):
    raise errors.UserError(
        f"{packing.dataset_dir(spec, data_dir)}: {spec.name} is not prepared; "
        f"run: {packing.prepare_command(spec, data_dir)}"
    )
  items = {}
  for split in records.splits(spec, data_dir):
    source = records.open_source(spec, split, data_dir)
    items[split] = [(source, i) for i in range(len(source))]
  return spec, items, scan_lib.read_stored, []


def _compare(
    manifest: pathlib.Path, items: Sequence[Any], report: rules.Report
) -> None:
  """Compares the files of items with the sums of a manifest, or writes it."""
  folder = manifest.absolute().parent
  found = {}
  # All images of an export may have one file of labels.
  for path in dict.fromkeys(p for item in items for p in scan_lib.paths(item)):
    if os.path.isfile(path):
      with files.open_regular(path) as file:
        total = hashlib.file_digest(file, "sha256").hexdigest()
      found[os.path.relpath(path, folder)] = total
  if not os.path.lexists(manifest):
    lines = [f"{total}  {name}\n" for name, total in sorted(found.items())]
    files.write_atomically(manifest, "".join(lines))
    report.notes.append(f"{manifest}: written, {len(lines)} files.")
    return
  text = files.read_text(manifest, what="a text file of SHA-256 sums")
  expected = {}
  for number, line in enumerate(text.splitlines(), start=1):
    parts = re.fullmatch("(.{64})  (.+)", line)
    if not parts:
      raise errors.UserError(
          f"{manifest}:{number}: found {line[:80]!r}; expected a SHA-256, two "
          "blanks and a file. Remove the manifest to write it anew."
      )
    expected[parts[2]] = parts[1]
  for name in sorted(found.keys() - expected.keys()):
    report.notes.append(f"{folder / name}: not in {manifest}.")
  for name, total in sorted(expected.items()):
    if found.get(name) != total:
      what = "other content" if name in found else "no such file"
      report.faults.append(
          f"{folder / name}: {what}; expected that of {manifest}. Restore the "
          "file, or remove the manifest to write it anew."
      )


def define_flags() -> None:
  """Defines the flags of the command."""
  for name, meaning in _FLAGS.items():
    flags.DEFINE_string(name, None, meaning)
  flags.DEFINE_bool(
      "any_size",
      False,
      "Accept other numbers of pairs than the published ones, and that classes "
      "are missing.",
  )
  custom.define_overlap_flag()
  for name, default, meaning in (
      ("num_workers", os.cpu_count() or 1, "Processes that read."),
      ("max_lines", 100, "Faults and notes to print; 0 prints all."),
  ):
    flags.DEFINE_integer(name, default, meaning, lower_bound=0)


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  define_flags()
  commands.run(main)
