"""Prepared datasets: where they are, and how they get there.

A dataset appears in `data_dir` under its name when it is complete, and not at
all when something is wrong.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import errno
import fcntl
import io
import os
import pathlib
import shutil
import sys
from typing import Any

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import builder
from ctxseg_jax.data import spec as spec_lib


def dataset_dir(
    spec: spec_lib.DatasetSpec, data_dir: str | os.PathLike
) -> pathlib.Path:
  """Returns the folder of the prepared dataset, whether or not it exists."""
  path = files.local_path(data_dir, "data_dir")
  try:
    str(path).encode()
  except UnicodeEncodeError as error:
    raise errors.UserError(
        f"data_dir: {files.printable(path)}: not UTF-8; expected a name that "
        "array_record can open. Rename the folder."
    ) from error
  return path / spec.name / str(builder.Builder.VERSION)


def is_prepared(
    spec: spec_lib.DatasetSpec, data_dir: str | os.PathLike
) -> bool:
  """Returns whether the dataset is there; it is complete if it is."""
  return (dataset_dir(spec, data_dir) / "dataset_info.json").is_file()


def prepare_command(spec: spec_lib.DatasetSpec, data_dir: str) -> str:
  """Returns the command that prepares a dataset, to be shown to the user."""
  source = " --source DIR" if spec.needs_source else ""
  return (
      f"python -m ctxseg_jax.data.prepare --dataset {spec.name}{source} "
      f"--data_dir {data_dir}"
  )


def ensure_prepared(
    spec: spec_lib.DatasetSpec, data_dir: str | os.PathLike
) -> pathlib.Path:
  """Returns the folder of a dataset, generated if that takes no source.

  Raises:
    UserError: It is not there and a folder of the user's is needed.
  """
  folder = dataset_dir(spec, data_dir)
  if not is_prepared(spec, data_dir):
    if spec.needs_source:
      raise errors.UserError(
          f"{folder}: {spec.name} is not prepared; run: "
          f"{prepare_command(spec, str(data_dir))}"
      )
    print(f"Preparing {spec.name} in {data_dir}, once.", file=sys.stderr)
    prepare(spec, data_dir)
  return folder


def prepare(
    spec: spec_lib.DatasetSpec,
    data_dir: str | os.PathLike,
    *,
    source: str | os.PathLike | None = None,
    any_size: bool = False,
) -> bool:
  """Writes a dataset, unless it is there; returns whether it was written.

  Args:
    spec: The dataset.
    data_dir: Folder of all prepared datasets.
    source: The user's folder, for a dataset that needs one.
    any_size: Accept a source of another size than the published.

  Raises:
    UserError: The source is missing or faulty, or `data_dir` cannot be written.
  """
  if is_prepared(spec, data_dir):
    return False
  if spec.needs_source and source is None:
    raise errors.UserError(
        f"--source: missing; expected a folder of {spec.name} that holds "
        f"{spec.layouts}. Run: {prepare_command(spec, str(data_dir))}"
    )
  items = find(spec, source, any_size=any_size)
  data_dir = files.local_path(data_dir, "data_dir")
  try:
    with _alone(spec, data_dir):
      # Another process may have written it while this one waited.
      if is_prepared(spec, data_dir):
        return False
      with contextlib.redirect_stdout(io.StringIO()):  # tfds announces itself.
        notes = builder.Builder(spec, items, data_dir).write()
  except (OSError, RuntimeError) as error:
    reason = " ".join(str(error).split())
    # Writers of array_record report a full disk by its text only.
    full = os.strerror(errno.ENOSPC)
    if isinstance(error, RuntimeError) and full not in reason:
      raise
    raise errors.UserError(
        f"{data_dir}: {spec.name} cannot be written ({reason}); expected a "
        "writable folder with enough space. Nothing was kept: mend it and run "
        "the command again."
    ) from error
  for note in notes:
    print(f"note: {note}", file=sys.stderr)
  return True


def find(
    spec: spec_lib.DatasetSpec,
    source: str | os.PathLike | None,
    *,
    any_size: bool = False,
) -> Mapping[str, Sequence[Any]]:
  """Returns what `spec.read` needs of each example, by split.

  Arguments and errors are those of `prepare`.
  """
  if not spec.needs_source and (source is not None or any_size):
    raise errors.UserError(
        f"--source, --any_size: {spec.name} is generated and takes neither; "
        "leave them out."
    )
  try:
    if spec.needs_source:
      source = pathlib.Path(source).expanduser()
      if not os.listdir(source):
        raise OSError(None, "empty folder", str(source))
    items = spec.find(source, any_size=any_size)
  except OSError as error:
    raise errors.UserError(
        f"{error.filename}: cannot be read ({error.strerror}); expected "
        f"{spec.layouts} in a readable folder of {spec.name}. Check --source."
    ) from error
  if not any(items.values()):
    raise errors.UserError(
        f"{source or spec.name}: no pairs in any split; expected "
        f"{spec.layouts}. Complete the source."
    )
  if not any_size:
    _check_sizes(spec, source, items)
  return items


def _check_sizes(
    spec: spec_lib.DatasetSpec,
    source: pathlib.Path | None,
    items: Mapping[str, Sequence[Any]],
) -> None:
  found, expected, wrong = [], [], []
  for split, size in spec.split_sizes.items():
    if size is None or (split in spec.optional_splits and split not in items):
      continue
    count = len(items.get(split, ()))
    found.append(f"{count} {split}")
    expected.append(f"{size} {split}")
    if count not in (size, spec.variant_sizes.get(split)):
      wrong.append(split)
  if wrong:
    raise errors.UserError(
        f"{source}: found {', '.join(found)} pairs; expected "
        f"{', '.join(expected)}. Complete {', '.join(wrong)}, or pass "
        "--any_size to prepare what is there."
    )


@contextlib.contextmanager
def _alone(
    spec: spec_lib.DatasetSpec, data_dir: pathlib.Path
) -> Iterator[None]:
  """Lets one process at a time write a dataset; the kernel frees the lock."""
  data_dir.mkdir(parents=True, exist_ok=True)
  with open(data_dir / f".{spec.name}.lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    folder = dataset_dir(spec, data_dir)
    # tfds writes to a folder of this name and renames it at the end. One that
    # is there now belongs to a process that was killed.
    for path in folder.parent.glob(f"incomplete.*_{folder.name}"):
      shutil.rmtree(path)
    yield
