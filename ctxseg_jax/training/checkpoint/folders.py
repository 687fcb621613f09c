"""Step folders: written beside their name, verified, renamed, deleted.

What is not under its final name is not a step, and only what has a manifest of
ours is ever deleted.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
from typing import Any
from typing import BinaryIO

from absl import logging

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.training.checkpoint import arrays as arrays_lib

MANIFEST = "manifest.json"
SAVING = ".saving"
DAMAGED = ".damaged"
_DELETING = ".deleting"
_FORMAT = 1


def steps(directory: pathlib.Path) -> list[int]:
  """Returns the steps under their final names, oldest first, intact or not."""
  return sorted(
      int(path.name)
      for path in directory.glob("*")
      if re.fullmatch("0|[1-9][0-9]{0,17}", path.name) and path.is_dir()
  )


def clear_leftovers(directory: pathlib.Path) -> None:
  """Deletes what an interrupted save, or an interrupted deletion, left."""
  for suffix in (SAVING, _DELETING):
    for path in directory.glob(f"*{suffix}"):
      logging.info("Removing %s, left by an interrupted run.", path)
      shutil.rmtree(path, ignore_errors=True)


def complete(
    directory: pathlib.Path, step: int, arrays: dict[str, str]
) -> None:
  """Reads `<step>.saving` back, writes its manifest and gives it its name.

  What it raises, if that fails, is of any kind.
  """
  saving = directory / f"{step}{SAVING}"
  if arrays_lib.listing(saving) != arrays:
    raise OSError(None, "what was read back is not what was saved")
  _write_manifest(saving, {"step": step, "arrays": arrays})
  final = directory / str(step)
  if final.exists():  # Of a run that was set back before this step.
    set_aside(final, _DELETING if _is_ours(final) else DAMAGED)
  saving.rename(final)
  _fsync(directory)


def prune(directory: pathlib.Path, step: int, max_to_keep: int) -> None:
  """Deletes old steps, now that `step` is complete."""
  paths = [directory / str(n) for n in steps(directory) if n != step]
  others = [path for path in paths if _is_ours(path)]
  for path in others[: len(others) - max_to_keep + 1]:
    # Under its own name, a half deleted step would look damaged.
    set_aside(path, _DELETING)
  for path in directory.glob(f"*{_DELETING}"):
    # What stays costs space only, and the next start tries again.
    shutil.rmtree(path, ignore_errors=True)


def set_aside(path: pathlib.Path, suffix: str) -> None:
  """Renames a step to a name that is free."""
  aside = path.with_name(path.name + suffix)
  count = 1
  while aside.exists():
    aside = path.with_name(f"{path.name}-{count}{suffix}")
    count += 1
  path.rename(aside)


def find_damage(step_dir: pathlib.Path) -> str | None:
  """Returns what differs from the manifest, naming the file; else None."""
  try:
    manifest = read_manifest(step_dir)
    for name, expected in manifest["files"].items():
      path = step_dir / name
      with files.open_regular(path, remedy="") as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected["size"]:
          return f"{path} has {size} bytes, expected {expected['size']}"
        if _sha256(file) != expected["sha256"]:
          return f"{path} differs from its SHA-256 in {MANIFEST}"
    if arrays_lib.listing(step_dir) != manifest["arrays"]:
      return f"{step_dir} has other arrays than its {MANIFEST} lists"
  except errors.UserError as e:
    return str(e).rstrip(". ")
  except Exception as e:  # Orbax names no base class for what it raises.
    return f"{step_dir} cannot be verified ({reason(e)})"
  return None


def read_manifest(step_dir: pathlib.Path) -> dict[str, Any]:
  """Returns the manifest; a missing, broken or other's one is a `UserError`."""
  path = step_dir / MANIFEST
  text = files.read_text(path, what="the manifest of a checkpoint", remedy="")
  try:
    manifest = json.loads(text)
    if manifest.pop("sha256") != _checksum(manifest):
      raise ValueError("its own checksum differs")
    if manifest["format"] != _FORMAT:
      raise ValueError(f"format {manifest['format']}, expected {_FORMAT}")
    step = manifest["step"]
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as e:
    raise errors.UserError(
        f"{path} is not a manifest ({type(e).__name__}: {reason(e)})"
    ) from e
  if str(step) != step_dir.name:
    raise errors.UserError(f"{step_dir} holds step {step}: it was renamed")
  return manifest


def reason(error: BaseException) -> str:
  """Returns the cause of an error in one line."""
  while error.__cause__ is not None:
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  # TensorStore puts the number at the end of a long line of paths.
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]


def _write_manifest(step_dir: pathlib.Path, manifest: dict[str, Any]) -> None:
  """Adds the size and SHA-256 of each file, all of them on the disk."""
  listed = {}
  for path in sorted(step_dir.rglob("*")):
    _fsync(path)
    if path.is_file():
      with open(path, "rb") as file:
        listed[path.relative_to(step_dir).as_posix()] = {
            "size": path.stat().st_size,
            "sha256": _sha256(file),
        }
  manifest = {"format": _FORMAT, **manifest, "files": listed}
  manifest["sha256"] = _checksum(manifest)
  files.write_atomically(step_dir / MANIFEST, json.dumps(manifest, indent=1))
  _fsync(step_dir)


def _is_ours(step_dir: pathlib.Path) -> bool:
  try:
    read_manifest(step_dir)
  except errors.UserError:
    return False
  return True


def _checksum(manifest: dict[str, Any]) -> str:
  text = json.dumps(manifest, sort_keys=True)
  return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _sha256(file: BinaryIO) -> str:
  return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
