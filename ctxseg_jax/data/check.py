r"""Looks at every image and label of a dataset before the first step.

  python -m ctxseg_jax.data.check --images DIR --labels DIR
  python -m ctxseg_jax.data.check --dataset custom --source DIR
  python -m ctxseg_jax.data.check --dataset camvid --source DIR
  python -m ctxseg_jax.data.check --dataset camvid --data_dir data

Files are decoded in full. Each fault is a line: the file, what was found and
expected, and the remedy; then comes a table of how much of each class there is.
Exit codes: 0 no fault, 2 faults. Notes are worth a look, but no faults.

A JPEG with changed bytes decodes to other pixels, which nothing in it tells.
--manifest FILE writes the SHA-256 of every file where FILE is not there (as
sha256sum does), and compares where it is.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import concurrent.futures
from concurrent.futures import process
import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import pathlib
import signal
import sys
from typing import Any

import cv2
import numpy as np
import rich.console
import rich.progress

from ctxseg_jax import errors
from ctxseg_jax.data import arguments
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import custom
from ctxseg_jax.data import datasets
from ctxseg_jax.data import images
from ctxseg_jax.data import pairs
from ctxseg_jax.data import spec as spec_lib

_CHUNK = 8  # Pairs handed to a process at once.
_NUM_LISTED = 8  # Names in a line.
_MANY_VALUES = 16  # Unknown values in one label that no mapping explains.
_PNG = b"\x89PNG"


@dataclasses.dataclass(frozen=True)
class Scan:
  """What one pair turned out to be.

  Attributes:
    identity: Its file, or its name where it has none: the same in two splits
      is one example that both hold.
    fault: What is wrong with it, in a line; empty if nothing is.
    notes: What is odd about it, a line each.
    num_bytes: Size of what was read.
    digest: Of the pixels of the image; None if they cannot be read.
    known: int64 [256], pixels by train id or `ignore_label`; None without a
      label that can be read.
    unknown: int64 [256], pixels by the ids that no class has.
    sums: SHA-256 by file, if asked for.
  """

  identity: str
  fault: str = ""
  notes: tuple[str, ...] = ()
  num_bytes: int = 0
  digest: bytes | None = None
  known: np.ndarray | None = None
  unknown: np.ndarray | None = None
  sums: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Report:
  """What a dataset turned out to be.

  Attributes:
    faults: A line each.
    notes: A line each.
    num_pairs: By split.
    pixels: int64 [256] by split, by train id or `ignore_label`.
    present: int64 [256] by split, how many labels hold each.
    sums: SHA-256 by file, if asked for.
  """

  faults: list[str]
  notes: list[str]
  num_pairs: dict[str, int]
  pixels: dict[str, np.ndarray]
  present: dict[str, np.ndarray]
  sums: dict[str, str]


def check_pairs(
    spec: spec_lib.DatasetSpec,
    items: Mapping[str, Sequence[Any]],
    *,
    read: Callable[[spec_lib.DatasetSpec, Any], Scan],
    faults: Sequence[str] = (),
    excerpt: bool = False,
    num_workers: int = 0,
) -> Report:
  """Scans all pairs and looks at what they are together.

  Args:
    spec: The dataset.
    items: What `read` takes, by split.
    read: Scans an item; of a module, for it goes to other processes.
    faults: What is known to be wrong.
    excerpt: Whether classes may be missing.
    num_workers: Processes that scan; with 0 or 1 it is done in this one.

  Raises:
    UserError: A process was killed.
  """
  splits = [split for split, of_split in items.items() for _ in of_split]
  flat = [item for of_split in items.values() for item in of_split]
  report = Report(
      faults=list(faults),
      notes=[],
      num_pairs={split: len(of_split) for split, of_split in items.items()},
      pixels={split: np.zeros(256, np.int64) for split in items},
      present={split: np.zeros(256, np.int64) for split in items},
      sums={},
  )
  unknown = np.zeros(256, np.int64)
  by_digest = collections.defaultdict(lambda: collections.defaultdict(set))
  told = set()
  for split, scan in zip(
      splits, _scan_all(spec, flat, read, num_workers), strict=True
  ):
    # A pair in two splits, such as train and trainval, is told of once.
    if scan.identity not in told:
      told.add(scan.identity)
      report.faults.extend([scan.fault] if scan.fault else [])
      report.notes.extend(scan.notes)
    report.sums.update(scan.sums)
    if scan.digest is not None:
      by_digest[scan.digest][scan.identity].add(split)
    if scan.known is not None:
      report.pixels[split] += scan.known
      report.present[split] += scan.known > 0
    if scan.unknown is not None:
      unknown += scan.unknown
  _tell_duplicates(by_digest, report)
  if spec.task == "segmentation":
    suspicions = _suspicions(spec, _total(report), unknown)
    # First, since they may be what the faults of the files come from.
    report.faults[:0] = suspicions
    if not suspicions:
      _tell_missing_classes(spec, report, excerpt)
  return report


def read_pair_and_sum(spec: spec_lib.DatasetSpec, item: Any) -> Scan:
  """Scans an item and adds the SHA-256 of its files."""
  sums = {}
  for path in (getattr(item, "image", None), getattr(item, "label", None)):
    if isinstance(path, pathlib.Path):
      with contextlib.suppress(OSError):  # The scan tells.
        sums[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
  return dataclasses.replace(read_pair(spec, item), sums=sums)


def read_pair(spec: spec_lib.DatasetSpec, item: Any) -> Scan:
  """Scans an item of a specification's `find`."""
  image_path = getattr(item, "image", None)
  paths = [image_path, getattr(item, "label", None)]
  paths = [path for path in paths if isinstance(path, pathlib.Path)]
  identity = str(paths[0]) if paths else ""
  try:
    example = spec.read(spec, item)
    place = identity or example.name
    digest = _pixel_digest(example.image, place)
  except spec_lib.UnknownValuesError as error:
    return Scan(
        identity,
        fault=str(error),
        num_bytes=_num_bytes(paths),
        known=error.known,
        unknown=error.unknown,
    )
  except errors.UserError as error:
    return Scan(identity, fault=str(error), num_bytes=_num_bytes(paths))
  # A split without public labels is not one of ignored pixels.
  label = example.label
  if isinstance(item, pairs.Pair) and item.label is None:
    label = np.zeros((0, 0), np.uint8)
  return Scan(
      place,
      notes=_notes(spec, example.image, label, place),
      num_bytes=_num_bytes(paths) or len(example.image),
      digest=digest,
      known=np.bincount(label.ravel(), minlength=256),
  )


@dataclasses.dataclass(frozen=True)
class Stored:
  """An example of a prepared dataset.

  Attributes:
    source: The split it is in.
    index: Its position.
  """

  source: Any
  index: int


def read_stored(spec: spec_lib.DatasetSpec, item: Stored) -> Scan:
  """Scans an example of a prepared dataset."""
  place = f"{spec.name}/{item.index}"
  try:
    try:
      record = item.source.record(item.index)
    except Exception as error:  # The reader raises anything on damage.
      reason = " ".join(str(error).split())
      raise errors.UserError(
          f"{place}: cannot be read ({reason}); expected the files as they "
          "were prepared. Remove the dataset and prepare it again."
      ) from error
    place = f"{spec.name}/{record['name'].decode()}"
    size = images.verify_image(record["image"], place)
    label = item.source.decode_label(record, place)
    if label.shape != spec.label_shape(size):
      raise errors.UserError(
          f"{place}: label of shape {label.shape} for an image of {size}; "
          "expected equal sizes. Prepare the dataset again."
      )
    spec.check_label(label, place)
    digest = _pixel_digest(record["image"], place)
  except errors.UserError as error:
    return Scan(place, fault=str(error))
  return Scan(
      place,
      notes=_notes(spec, record["image"], label, place),
      num_bytes=len(record["image"]),
      digest=digest,
      known=np.bincount(label.ravel(), minlength=256),
  )


def table(spec: spec_lib.DatasetSpec, report: Report) -> str:
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
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
      "  ".join(
          [row[0].ljust(widths[0])]
          + [x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True)]
      )
      for row in rows
  ]
  rule = "-" * len(lines[0])
  return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code."""
  try:
    args = _parse(argv)
    spec, items, read, faults = _open(args)
    manifest = None
    if args.manifest is not None:
      if read is not read_pair:
        raise errors.UserError(
            "--manifest: goes with files as you have them, but prepared "
            "datasets have sums of their own. Leave it out."
        )
      read = read_pair_and_sum
      manifest = pathlib.Path(args.manifest).expanduser()
    report = check_pairs(
        spec,
        items,
        read=read,
        faults=faults,
        excerpt=args.any_size,
        num_workers=args.num_workers,
    )
    if manifest is not None:
      _compare(manifest, report)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code
  except KeyboardInterrupt:
    print("error: interrupted", file=sys.stderr)
    return 130
  for word, found in (("note", report.notes), ("fault", report.faults)):
    for line in found[: args.max_lines or None]:
      print(f"{word}: {line}")
    if len(found) > args.max_lines > 0:
      print(
          f"{word}: {len(found) - args.max_lines} more; --max_lines=0 shows all"
      )
  print(table(spec, report))
  num_pairs = sum(report.num_pairs.values())
  if report.faults:
    print(
        f"error: {len(report.faults)} faults in {num_pairs} pairs of"
        f" {spec.name}, listed on standard output; mend them, then check again",
        file=sys.stderr,
    )
    return errors.UserError.exit_code
  print(f"no fault in {num_pairs} pairs of {spec.name}")
  return 0


def _open(args) -> tuple[
    spec_lib.DatasetSpec,
    Mapping[str, Sequence[Any]],
    Callable[..., Scan],
    Sequence[str],
]:
  """Returns specification, items, how to read them, and faults so far."""
  folders = args.images is not None or args.labels is not None
  if folders == (args.dataset is not None):
    raise errors.UserError(
        "expected --dataset, or --images and --labels. --help lists the flags."
    )
  if folders:
    given = {"images": args.images, "labels": args.labels}
    for name, value in given.items():
      if value is None:
        raise errors.UserError(
            f"--{name}: missing; expected the folder of {name}. Pass both."
        )
    image_dir = pathlib.Path(args.images).expanduser()
    label_dir = pathlib.Path(args.labels).expanduser()
    found = custom.find_in_folders(image_dir, label_dir)
    classes_file = image_dir.resolve().parent / custom.CLASSES_FILE
    if args.classes:
      classes_file = pathlib.Path(args.classes)
    spec = custom.make_spec(classes_lib.read(classes_file))
    return spec, found.pairs, read_pair, found.faults
  if args.classes is not None:
    raise errors.UserError(
        "--classes: goes with --images and --labels; leave it out."
    )
  if (args.source is None) == (args.data_dir is None):
    raise errors.UserError(
        "expected --source, the files as you have them, or --data_dir, the "
        "folder of prepared datasets. Pass one of them."
    )
  if args.data_dir is not None:
    if args.dataset == custom.NAME:
      raise errors.UserError(
          "--data_dir: your own data is checked as you have it; expected "
          "--source. Pass the folder."
      )
    return _open_prepared(args)
  if args.dataset == custom.NAME:
    root = pathlib.Path(args.source).expanduser()
    spec = custom.make_spec(classes_lib.read(root / custom.CLASSES_FILE))
    found = custom.find(root)
    return spec, found.pairs, read_pair, found.faults
  return _open_source(args)


def _open_source(args):
  # It takes tfds, which is half a second that not every use pays.
  from ctxseg_jax.data import prepare

  spec = datasets.lookup(args.dataset)
  try:
    items = prepare.find(spec, args.source, any_size=args.any_size)
    return spec, items, read_pair, []
  except errors.UserError as error:
    # What there is can be scanned all the same, if it is of the layout.
    try:
      items = prepare.find(spec, args.source, any_size=True)
    except errors.UserError:
      raise error from error
    return spec, items, read_pair, [str(error)]


def _open_prepared(args):
  from ctxseg_jax.data import pipeline
  from ctxseg_jax.data import prepare

  spec = datasets.lookup(args.dataset)
  folder = prepare.dataset_dir(spec, args.data_dir)
  if not prepare.is_prepared(spec, args.data_dir):
    raise errors.UserError(
        f"{folder}: {spec.name} is not prepared; run: "
        f"{prepare.prepare_command(spec, args.data_dir)}"
    )
  items = {}
  for split in prepare.splits(spec, args.data_dir):
    source = pipeline.open_source(spec, split, args.data_dir)
    items[split] = [Stored(source, i) for i in range(len(source))]
  return spec, items, read_stored, []


def _scan_all(
    spec: spec_lib.DatasetSpec,
    items: Sequence[Any],
    read: Callable[..., Scan],
    num_workers: int,
) -> Iterator[Scan]:
  """Yields the scans in order, showing a bar on a terminal."""
  with contextlib.ExitStack() as stack:
    if num_workers > 1 and len(items) > _CHUNK:
      pool = concurrent.futures.ProcessPoolExecutor(
          num_workers,
          # A fork could copy locks of threads that it leaves behind.
          mp_context=multiprocessing.get_context("spawn"),
          initializer=_start_worker,
          initargs=(spec, read),
      )
      stack.callback(pool.shutdown, cancel_futures=True)
      scans = pool.map(_scan_in_worker, items, chunksize=_CHUNK)
    else:
      scans = (read(spec, item) for item in items)
    bar = stack.enter_context(_bar())
    task = bar.add_task(spec.name, total=len(items), rate="")
    num_bytes = 0
    try:
      for count, scan in enumerate(scans, start=1):
        num_bytes += scan.num_bytes
        seconds = bar.tasks[0].elapsed or 0.0
        if seconds > 0:
          megabytes = num_bytes / seconds / 1e6
          rate = f"{count / seconds:.0f} pairs/s {megabytes:.1f} MB/s"
          bar.update(task, completed=count, rate=rate)
        yield scan
    except process.BrokenProcessPool as error:
      raise errors.UserError(
          "a process was killed while it read files, perhaps for want of "
          "memory; expected it to finish. Run it with --num_workers=1."
      ) from error


def _bar() -> rich.progress.Progress:
  console = rich.console.Console(stderr=True)
  return rich.progress.Progress(
      rich.progress.TextColumn("{task.description}"),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TextColumn("{task.fields[rate]}"),
      rich.progress.TextColumn("ETA"),
      rich.progress.TimeRemainingColumn(),
      console=console,
      transient=True,
      disable=not console.is_terminal,  # A bar in a log file is noise.
  )


_worker = None  # Specification and reader of this process, if it is a worker.


def _start_worker(spec, read):
  global _worker
  _worker = (spec, read)
  cv2.setNumThreads(0)  # The processes are the parallelism.
  # Sent to the whole group; the parent ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)


def _scan_in_worker(item: Any) -> Scan:
  spec, read = _worker
  return read(spec, item)


def _pixel_digest(image: bytes, place: str) -> bytes:
  # By the decoder of training, which thus has seen every image, too.
  pixels = images.decode_image(image, place, verify=False)
  # The fastest one where the processor has instructions for it, as most do.
  digest = hashlib.sha256(str(pixels.shape).encode())
  digest.update(np.ascontiguousarray(pixels))
  return digest.digest()


def _num_bytes(paths: Sequence[pathlib.Path]) -> int:
  total = 0
  for path in paths:
    with contextlib.suppress(OSError):
      total += path.stat().st_size
  return total


def _notes(
    spec: spec_lib.DatasetSpec, image: bytes, label: np.ndarray, place: str
) -> tuple[str, ...]:
  notes = []
  if image.startswith(_PNG) and b"IEND" not in image:
    notes.append(
        f"{place}: PNG without its end; all rows are there and are used. "
        "Replace the file if you can."
    )
  if label.ndim and label.size and (label == spec.ignore_label).all():
    notes.append(f"{place}: every pixel of the label is ignored.")
  return tuple(notes)


def _compare(manifest: pathlib.Path, report: Report) -> None:
  """Compares with the sums of a manifest, or writes it."""
  folder = manifest.absolute().parent
  found = {os.path.relpath(path, folder): s for path, s in report.sums.items()}
  try:
    if not manifest.exists():
      lines = [f"{total}  {name}\n" for name, total in sorted(found.items())]
      manifest.write_text("".join(lines), encoding="utf-8")
      report.notes.append(f"{manifest}: written, {len(lines)} files.")
      return
    text = manifest.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(
        f"--manifest: {manifest} cannot be used ({error}); expected a text "
        "file, or a place for one. Choose another."
    ) from error
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


def _tell_duplicates(
    by_digest: Mapping[bytes, Mapping[str, set[str]]], report: Report
) -> None:
  for by_identity in by_digest.values():
    (first, first_splits), *others = by_identity.items()
    for identity, splits in others:
      if first_splits == splits and len(splits) == 1:
        report.notes.append(
            f"{identity}: the same image as {first}, both in {min(splits)}."
        )
        continue
      report.faults.append(
          f"{identity}: in {', '.join(sorted(splits))}, the same image as "
          f"{first} in {', '.join(sorted(first_splits))}; expected each image "
          "in one split. Remove it from one, or results on it mean nothing."
      )


def _total(report: Report) -> np.ndarray:
  """Returns the pixels of all splits, of which there may be none."""
  return sum(report.pixels.values(), np.zeros(256, np.int64))


def _suspicions(
    spec: spec_lib.DatasetSpec, known: np.ndarray, unknown: np.ndarray
) -> list[str]:
  """Tells what the labels look like that was done to all of them."""
  raw_ids = np.flatnonzero(spec.label_map != spec.ignore_label)
  values = np.flatnonzero(unknown)
  missing = [i for i in range(spec.num_classes) if not known[i]]
  first, last = (spec.label_map[i] for i in (raw_ids[0], raw_ids[-1]))
  ignored = known[spec.ignore_label] + unknown[spec.ignore_label]
  expected = f"expected {spec_lib.ranges(raw_ids.tolist())} for the classes"
  if values.tolist() == [raw_ids[-1] + 1] and missing[:1] == [first]:
    return [
        f"{spec.name}: id {raw_ids[0]} ({spec.class_names[first]}) is in no "
        f"label and {values[0]} is in some, so all ids look shifted up by one; "
        f"{expected}. Subtract one from every id."
    ]
  if spec.ignore_label - 1 in values and last in missing:
    return [
        f"{spec.name}: ids up to {raw_ids[-1] - 1} and {values[-1]}, as if one "
        "had been subtracted from every id, from that of ignored pixels, too; "
        f"{expected}. Use the labels as they were."
    ]
  if ignored and missing == [last]:
    return [
        f"{spec.name}: id {raw_ids[-1]} ({spec.class_names[last]}) is in no "
        f"label and {spec.ignore_label} is in some, so all ids look shifted "
        f"down by one; {expected}. Use the labels as they were, or take the "
        "class out of the list."
    ]
  if ignored and not len(values) and len(missing) == spec.num_classes - 1:
    only = next(i for i in range(spec.num_classes) if i not in missing)
    return [
        f"{spec.name}: all labels hold {spec.class_names[only]} and "
        f"{spec.ignore_label} only, so {spec.ignore_label} looks used as a "
        f"class, but it means ignored; {expected}. Write the class's id "
        f"instead of {spec.ignore_label}."
    ]
  grays = {(19595 * r + 38470 * g + 7471 * b + 32768) >> 16
           for r, g, b in spec.palette}  # fmt: skip
  if len(values) > 1 and set(values.tolist()) <= grays:
    return [
        f"{spec.name}: label values {spec_lib.ranges(values.tolist())} are the "
        f"brightness of the classes' colours; {expected}. Save ids, or the "
        "colours themselves, but not their conversion to gray."
    ]
  if len(values) >= _MANY_VALUES:
    return [
        f"{spec.name}: {len(values)} label values between and beyond the "
        f"classes, as after resizing with interpolation or saving as JPEG; "
        f"{expected}. Make the labels again, resizing by nearest neighbour."
    ]
  return []


def _tell_missing_classes(
    spec: spec_lib.DatasetSpec, report: Report, excerpt: bool
) -> None:
  """Tells of classes that no label holds, or none to train on."""
  total = _total(report)
  if not total.any():
    return  # Nothing could be read, which has been told.
  missing = [i for i in range(spec.num_classes) if not total[i]]
  wheres = [("any label", missing)]
  if "train" in report.pixels:
    untrained = [
        i
        for i in range(spec.num_classes)
        if total[i] and not report.pixels["train"][i]
    ]
    wheres.append(("any label of train", untrained))
  for where, ids in wheres:
    if not ids:
      continue
    names = ", ".join(spec.class_names[i] for i in ids[:_NUM_LISTED])
    more = (
        f" and {len(ids) - _NUM_LISTED} more" if len(ids) > _NUM_LISTED else ""
    )
    line = (
        f"{spec.name}: {len(ids)} of {spec.num_classes} classes are not in "
        f"{where}: {names}{more}; expected each, or it can neither be learnt "
        "nor scored. Add labels with them, or take them out of the classes."
    )
    (report.notes if excerpt else report.faults).insert(0, line)


def _parse(argv: Sequence[str] | None):
  parser = arguments.Parser(
      prog="python -m ctxseg_jax.data.check",
      description="Looks at every image and label of a dataset.",
      allow_abbrev=False,
  )
  names = ", ".join([custom.NAME, *sorted(datasets.DATASETS)])
  parser.add_argument("--dataset", help=names)
  parser.add_argument("--source", help="Your folder of the dataset.")
  parser.add_argument("--data_dir", help="Folder of all prepared datasets.")
  parser.add_argument("--images", help="Folder of images, of any dataset.")
  parser.add_argument("--labels", help="Folder of labels of the same names.")
  parser.add_argument(
      "--classes",
      help="File of a class per line; default: classes.txt beside the images.",
  )
  parser.add_argument(
      "--any_size",
      action="store_true",
      help="Accept other numbers of pairs than the published ones, and that "
      "classes are missing.",
  )
  parser.add_argument(
      "--manifest",
      help="File of SHA-256 sums, to write or to compare with.",
  )
  parser.add_argument(
      "--num_workers",
      type=int,
      default=len(os.sched_getaffinity(0))
      if hasattr(os, "sched_getaffinity")
      else os.cpu_count(),
      help="Processes that read; default: one per core.",
  )
  parser.add_argument(
      "--max_lines",
      type=int,
      default=100,
      help="Faults and notes to print; 0 prints all.",
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  sys.exit(main())
