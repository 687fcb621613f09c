"""A folder for results in which nothing is lost.

What a command writes may only take the place of what it wrote itself. So the
folder has a list of its files with their sums, in the format of `sha256sum`,
and a file that is not on it, or has changed since, is not replaced.
"""

from collections.abc import Iterable
import hashlib
import os
import re

from ctxseg_jax import errors
from ctxseg_jax import files

LIST = "predictions.sha256"


class OutputFolder:
  """Writes files whose names are known, and were checked, before the work."""

  def __init__(
      self,
      path: str | os.PathLike[str],
      planned: Iterable[tuple[str, os.PathLike[str] | None]],
  ):
    """Makes the folder, unless what is there is in the way.

    Args:
      path: The folder.
      planned: The name of every file to be written, relative to the folder,
        with the image it is made from, or None if it is made from several.

    Raises:
      UserError: Two files of one name, an input among the outputs, a file that
        is not ours, or a folder that cannot be written.
    """
    self._path = files.local_path(path, "--output")
    shown = files.printable(path)
    sources = {}
    for name, source in planned:
      if name in sources:
        raise errors.UserError(
            f"{files.printable(source)} and {files.printable(sources[name])}:"
            f" both would be written to {files.printable(name)}; rename one or"
            " predict them apart"
        )
      sources[name] = source
    folders = {self._path} | {(self._path / name).parent for name in sources}
    real = {os.path.realpath(folder) for folder in folders}
    for source in sources.values():
      if source and os.path.dirname(os.path.realpath(source)) in real:
        raise errors.UserError(
            f"--output: {shown} is the folder of {files.printable(source)};"
            " choose another, so that no image is replaced"
        )
    known = self._read_list()
    for name in sources:
      self._require_ours(name, known)
    try:
      for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise errors.UserError(
          f"--output: {shown}: cannot be made ({e.strerror}); choose another"
          " folder"
      ) from e
    # This finds out as well whether files can be written, before the work.
    files.write_atomically(self._path / LIST, b"".join(sorted(known)))

  def write(self, name: str, *parts: bytes | memoryview) -> None:
    """Writes one of the planned files, of parts that are not copied."""
    digest = hashlib.sha256()
    for part in parts:
      digest.update(part)
    # First, so that the file is known as ours even if we are killed then.
    line = _line(digest.hexdigest(), name)
    with open(self._path / LIST, "ab") as file:
      file.write(line)
    with files.writing(self._path / name) as file:
      file.writelines(parts)

  def _read_list(self) -> set[bytes]:
    path = self._path / LIST
    if not os.path.lexists(path):
      return set()
    data = files.read_bytes(path, what="a list of files")
    # A full disk may have cut the last line short.
    lines = [x for x in data.splitlines(True) if x.endswith(b"\n")]
    if (data and not lines) or not all(
        re.fullmatch(rb"[0-9a-f]{64}  .+\n", line) for line in lines
    ):
      raise errors.UserError(
          f"{files.printable(path)}: is not the list that this command writes;"
          " choose another --output"
      )
    return set(lines)

  def _require_ours(self, name: str, known: set[bytes]) -> None:
    path = self._path / name
    if not os.path.lexists(path):
      return
    if os.path.isfile(path) and not os.path.islink(path):
      with files.open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
      if _line(digest, name) in known:
        return
    raise errors.UserError(
        f"{files.printable(path)}: is there and is not as this command wrote"
        " it; move it away or choose another --output"
    )


def _line(digest: str, name: str) -> bytes:
  escaped = os.fsencode(name).replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
  return digest.encode() + b"  " + escaped + b"\n"
