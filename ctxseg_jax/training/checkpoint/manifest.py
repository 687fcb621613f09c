"""The manifest of a checkpoint: the SHA-256 of every file, written last."""

import hashlib
import json
import os
import pathlib
from typing import Any

from ctxseg_jax.training.checkpoint import failures

NAME = "manifest.json"
_FORMAT = 1


def complete_steps(directory: pathlib.Path) -> list[int]:
  return sorted(
      int(path.parent.name)
      for path in directory.glob(f"*/{NAME}")
      if path.parent.name.isdecimal()
  )


def find_damage(step_dir: pathlib.Path) -> str | None:
  """Returns what differs from the manifest, naming the file; else None."""
  try:
    manifest = read(step_dir)
  except (OSError, ValueError, KeyError, TypeError) as e:
    return f"{step_dir / NAME} is not readable ({failures.reason(e)})"
  for name, expected in manifest["files"].items():
    path = step_dir / name
    try:
      size = path.stat().st_size
      if size != expected["size"]:
        return f"{path} has {size} bytes, expected {expected['size']}"
      if _sha256(path) != expected["sha256"]:
        return f"{path} differs from its SHA-256 in {NAME}"
    except FileNotFoundError:
      return f"{path} is missing"
    except OSError as e:
      return f"{path} cannot be read ({failures.reason(e)})"
  return None


def write(step_dir: pathlib.Path, arrays: dict[str, str]) -> None:
  files = {}
  for path in sorted(step_dir.rglob("*")):
    if path.is_dir():
      continue
    _fsync(path)
    name = path.relative_to(step_dir).as_posix()
    files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
  manifest = {"format": _FORMAT, "arrays": arrays, "files": files}
  manifest["sha256"] = _checksum(manifest)
  tmp = step_dir / f"{NAME}.tmp"
  with open(tmp, "w", encoding="utf-8") as f:
    json.dump(manifest, f, indent=1)
    f.flush()
    os.fsync(f.fileno())
  failures.fault("before_manifest")
  os.rename(tmp, step_dir / NAME)
  _fsync(step_dir)
  _fsync(step_dir.parent)


def read(step_dir: pathlib.Path) -> dict[str, Any]:
  manifest = json.loads((step_dir / NAME).read_text("utf-8"))
  if manifest.pop("sha256") != _checksum(manifest):
    raise ValueError("its own checksum differs")
  if manifest["format"] != _FORMAT:
    raise ValueError(f"format {manifest['format']}, expected {_FORMAT}")
  return manifest


def _checksum(manifest: dict[str, Any]) -> str:
  return hashlib.sha256(
      json.dumps(manifest, sort_keys=True).encode("utf-8")
  ).hexdigest()


def _sha256(path: pathlib.Path) -> str:
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _fsync(path: pathlib.Path) -> None:
  fd = os.open(path, os.O_RDONLY)
  try:
    os.fsync(fd)
  finally:
    os.close(fd)
