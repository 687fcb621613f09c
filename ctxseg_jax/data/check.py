r"""Looks at every image and label of a dataset before the first step.

  python -m ctxseg_jax.data.check --images DIR --labels DIR
  python -m ctxseg_jax.data.check --dataset custom --source DIR
  python -m ctxseg_jax.data.check --dataset camvid --source DIR
  python -m ctxseg_jax.data.check --dataset camvid --data_dir data

Files are decoded in full. Each fault is a line: the file, what was found and
expected, and the remedy; then comes a table of how much of each class there is.
Exit codes: 0 no fault, 2 faults. Notes are worth a look, but no faults.

A JPEG with changed bytes decodes to other pixels, which nothing in it shows.
--manifest FILE writes the SHA-256 of every file where FILE is not there (as
sha256sum does), and compares where it is.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
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

_Items = Mapping[str, Sequence[Any]]  # By split.


@dataclasses.dataclass(frozen=True)
class Options:
  """What to check; `define_flags` has the meaning of each."""

  dataset: str | None = None
  source: str | None = None
  data_dir: str | None = None
  images: str | None = None
  labels: str | None = None
  classes: str | None = None
  any_size: bool = False
  manifest: str | None = None
  num_workers: int = 0


def check(options: Options) -> tuple[spec_lib.DatasetSpec, rules.Report]:
  """Scans all pairs and looks at what they are together.

  Returns:
    The dataset, and what was found.

  Raises:
    UserError: There is nothing to scan, or a process was killed.
  """
  spec, items, read, faults = _open(options)
  if options.manifest is not None and options.data_dir is not None:
    raise errors.UserError(
        "--manifest: goes with files as you have them, but prepared datasets "
        "have sums of their own. Leave it out."
    )
  report = rules.Report(spec, items)
  report.faults += faults
  splits = [split for split, of_split in items.items() for _ in of_split]
  flat = [item for of_split in items.values() for item in of_split]
  scans = scan_lib.scan_all(spec, flat, read, options.num_workers)
  for split, scan in zip(splits, scans, strict=True):
    report.add(split, scan)
  report.conclude()
  (report.notes if options.any_size else report.faults)[:0] = report.absent
  if options.manifest is not None:
    _compare(pathlib.Path(options.manifest).expanduser(), flat, report)
  return spec, report


def table(spec: spec_lib.DatasetSpec, report: rules.Report) -> str:
  """Returns how many pairs there are and the share of each class, by split."""
  splits = list(report.num_pairs)
  rows = [["", *splits, "labels with it"]]
  for i, name in [
      *enumerate(spec.class_names),
      (spec.ignore_label, "(ignored)"),
  ]:
    shares = [
        report.pixels[split][i] / max(1, report.pixels[split].sum())
        for split in splits
    ]
    count = sum(int(report.present[split][i]) for split in splits)
    rows.append([name, *(f"{share:.2%}" for share in shares), str(count)])
  counts = [report.num_pairs[split] for split in splits]
  rows.append(["pairs", *map(str, counts), str(sum(counts))])
  sides = "<" + ">" * (len(splits) + 1)
  return "\n".join(columns.align(rows, sides, total=True))


def show(
    spec: spec_lib.DatasetSpec, report: rules.Report, max_lines: int = 0
) -> None:
  """Prints a report.

  Args:
    spec: The dataset.
    report: What `check` returned.
    max_lines: Faults and notes to print; 0 prints all.

  Raises:
    UserError: There are faults.
  """
  for word, found in (("note", report.notes), ("fault", report.faults)):
    for line in found[: max_lines or None]:
      print(f"{word}: {line}")
    if len(found) > max_lines > 0:
      print(f"{word}: {len(found) - max_lines} more; --max_lines=0 shows all")
  print(table(spec, report))
  num_pairs = sum(report.num_pairs.values())
  if report.faults:
    raise errors.UserError(
        f"{len(report.faults)} faults in {num_pairs} pairs of {spec.name}, "
        "listed on standard output; mend them, then check again"
    )
  print(f"no fault in {num_pairs} pairs of {spec.name}")


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  values = {
      field.name: flags.FLAGS[field.name].value
      for field in dataclasses.fields(Options)
  }
  show(*check(Options(**values)), flags.FLAGS.max_lines)


def _open(
    options: Options,
) -> tuple[spec_lib.DatasetSpec, _Items, scan_lib.Read, list[str]]:
  """Returns specification, items, how to read them, and faults so far."""
  _check_options(options)
  if options.data_dir is not None:
    return _open_prepared(datasets.lookup(options.dataset), options)
  if options.dataset not in (None, custom.NAME):
    return _open_source(datasets.lookup(options.dataset), options)
  if options.dataset is None:
    folders = map(custom.absolute, (options.images, options.labels))
    found = own_files.find_in_folders(*folders)
    root = pathlib.Path(options.images).expanduser().resolve().parent
  else:
    root = custom.absolute(options.source)
    found = own_files.find(root)
  classes_file = root / custom.CLASSES_FILE
  if options.classes is not None:
    classes_file = custom.absolute(options.classes)
  spec = custom.make_spec(classes_lib.read(classes_file))
  return spec, found.pairs, scan_lib.read_pair, found.faults


def _check_options(options: Options) -> None:
  """Refuses options that do not go together."""
  folders = {"images": options.images, "labels": options.labels}
  missing = [name for name, path in folders.items() if path is None]
  problem = ""
  if (len(missing) < 2) == (options.dataset is not None):
    problem = "expected --dataset, or --images and --labels. --help has more."
  elif len(missing) == 1:
    problem = (
        f"--{missing[0]}: missing; expected the folder of {missing[0]}. Pass "
        "both."
    )
  elif missing and options.classes is not None:
    problem = "--classes: goes with --images and --labels; leave it out."
  elif missing and (options.source is None) == (options.data_dir is None):
    problem = (
        "expected --source, the files as you have them, or --data_dir, the "
        "folder of prepared datasets. Pass one of them."
    )
  elif options.dataset == custom.NAME and options.data_dir is not None:
    problem = (
        "--data_dir: your own data is checked as you have it; expected "
        "--source. Pass the folder."
    )
  if problem:
    raise errors.UserError(problem)


def _open_source(spec: spec_lib.DatasetSpec, options: Options):
  # It takes tfds, which is half a second that not every use pays.
  from ctxseg_jax.data import packing

  try:
    items = packing.find(spec, options.source, any_size=options.any_size)
    return spec, items, scan_lib.read_pair, []
  except errors.UserError as error:
    # What there is can be scanned all the same, if it is of the layout.
    try:
      items = packing.find(spec, options.source, any_size=True)
    except errors.UserError:
      raise error from error
    return spec, items, scan_lib.read_pair, [str(error)]


def _open_prepared(spec: spec_lib.DatasetSpec, options: Options):
  from ctxseg_jax.data import packing
  from ctxseg_jax.data import records

  folder = packing.dataset_dir(spec, options.data_dir)
  if not packing.is_prepared(spec, options.data_dir):
    raise errors.UserError(
        f"{folder}: {spec.name} is not prepared; run: "
        f"{packing.prepare_command(spec, options.data_dir)}"
    )
  items = {}
  for split in records.splits(spec, options.data_dir):
    source = records.open_source(spec, split, options.data_dir)
    items[split] = [(source, i) for i in range(len(source))]
  return spec, items, scan_lib.read_stored, []


def _compare(
    manifest: pathlib.Path, items: Sequence[Any], report: rules.Report
) -> None:
  """Compares the files of items with the sums of a manifest, or writes it."""
  folder = manifest.absolute().parent
  found = {}
  for item in items:
    for path in filter(os.path.isfile, scan_lib.paths(item)):
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
    total, blank, name = line.partition("  ")
    if len(total) != 64 or not blank or not name:
      raise errors.UserError(
          f"{manifest}:{number}: found {line[:80]!r}; expected a SHA-256, two "
          "blanks and a file. Remove the manifest to write it anew."
      )
    expected[name] = total
  for name in sorted(expected.keys() | found.keys()):
    if found.get(name) == expected.get(name):
      continue
    if name not in expected:
      report.notes.append(f"{folder / name}: not in {manifest}.")
      continue
    what = "other content" if name in found else "no such file"
    report.faults.append(
        f"{folder / name}: {what}; expected that of {manifest}. Restore the "
        "file, or remove the manifest to write it anew."
    )


def define_flags() -> None:
  """Defines the flags of the command."""
  names = ", ".join([custom.NAME, *sorted(datasets.DATASETS)])
  for name, meaning in (
      ("dataset", f"One of {names}; with --source or --data_dir."),
      ("source", "Your folder of the dataset."),
      ("data_dir", "Folder of all prepared datasets."),
      ("images", "Folder of images, instead of a dataset; with --labels."),
      ("labels", "Folder of labels of the same names."),
      ("classes", "File of a class per line; default: that beside the images."),
      ("manifest", "File of SHA-256 sums, to write or to compare with."),
  ):
    flags.DEFINE_string(name, None, meaning)
  flags.DEFINE_bool(
      "any_size",
      False,
      "Accept other numbers of pairs than the published ones, and that classes "
      "are missing.",
  )
  for name, default, meaning in (
      ("num_workers", os.cpu_count() or 1, "Processes that read."),
      ("max_lines", 100, "Faults and notes to print; 0 prints all."),
  ):
    flags.DEFINE_integer(name, default, meaning, lower_bound=0)


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  define_flags()
  commands.run(main)
