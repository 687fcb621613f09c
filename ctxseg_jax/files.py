"""Files that a user names: read with care, written whole or not at all.

A path can lead to anything: a pipe that nobody writes to, a device without an
end, a link to itself, a folder. Here it leads to a regular file of a sane size
or to a `UserError` of one line.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import glob
import os
import pathlib
import re
import secrets
import shutil
import stat
import time
from typing import BinaryIO

from ctxseg_jax import errors

MAX_BYTES = 1 << 30  # Of a file that is read into memory.
MAX_TEXT_BYTES = 64 << 20

_REMEDY = "Check the path and its permissions."
# Younger ones may be of a process that is about to take the lock.
_LEFTOVER_SECONDS = 1.0


def local_path(text: os.PathLike | str, flag: str) -> pathlib.Path:
  """Returns the path that a flag or a config names, with `~` expanded.

  Raises:
    UserError: It is a URL, such as `gs://bucket/run`, of which `pathlib` would
      make a local folder; the message says the flag.
  """
  scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", os.fsdecode(text))
  if scheme:
    raise errors.UserError(
        f"{flag}: {printable(text)}: {scheme[0]}/ is not supported; expected a"
        " path of this machine's file system. Mount the bucket or copy what it"
        " holds."
    )
  return pathlib.Path(os.path.expanduser(text))


def open_regular(
    path: os.PathLike | str,
    *,
    max_bytes: int | None = None,
    what: str = "a file",
    remedy: str = _REMEDY,
) -> BinaryIO:
  """Opens a regular file for reading; waits for nothing.

  Args:
    path: The file; links are followed.
    max_bytes: The largest size; None sets no limit.
    what: What the file should be, for messages.
    remedy: What to do if it is not there or not readable, for messages.

  Raises:
    UserError: It is missing, unreadable, no regular file or too large.
  """
  with _reading(path, what, remedy):
    # A pipe would otherwise block until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  try:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
      kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
      raise errors.UserError(
          f"{printable(path)}: {kind}; expected {what}. Choose a regular file."
      )
    _check_size(path, status.st_size, max_bytes, what)
  except errors.UserError:
    os.close(descriptor)
    raise
  return os.fdopen(descriptor, "rb")


def read_bytes(
    path: os.PathLike | str,
    *,
    max_bytes: int = MAX_BYTES,
    what: str = "a file",
    remedy: str = _REMEDY,
) -> bytes:
  """Returns the content of a file; arguments and errors as `open_regular`."""
  with (
      open_regular(path, max_bytes=max_bytes, what=what, remedy=remedy) as file,
      _reading(path, what, remedy),
  ):
    data = file.read()
  # It may have grown; files of /proc have no size before.
  _check_size(path, len(data), max_bytes, what)
  return data


@contextlib.contextmanager
def _reading(path, what, remedy):
  try:
    yield
  except (OSError, ValueError) as e:  # The latter for a null byte.
    raise errors.UserError(
        f"{printable(path)}: {_reason(path, e)}; expected {what}. {remedy}"
    ) from e


def _check_size(path, size, max_bytes, what):
  if max_bytes is not None and size > max_bytes:
    raise errors.UserError(
        f"{printable(path)}: {size:,} bytes; expected {what} of at most"
        f" {max_bytes:,}. Choose another file."
    )


def read_text(
    path: os.PathLike | str,
    *,
    max_bytes: int = MAX_TEXT_BYTES,
    what: str = "a text file",
    remedy: str = _REMEDY,
) -> str:
  """Returns the text of a UTF-8 file, without its byte order mark.

  Arguments and errors are those of `open_regular`; text in another encoding is
  a `UserError` as well.
  """
  data = read_bytes(path, max_bytes=max_bytes, what=what, remedy=remedy)
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise errors.UserError(
        f"{printable(path)}: not UTF-8 text (byte {data[error.start]:#04x} at "
        f"position {error.start}); expected {what}. Save it as UTF-8."
    ) from error


def write_atomically(path: os.PathLike | str, data: bytes | str) -> None:
  """Writes a file so that no reader ever sees a part of it; see `writing`.

  Text is written as UTF-8. If that fails, the earlier file is unchanged.
  """
  with writing(path) as file:
    file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def writing(path: os.PathLike | str) -> Iterator[BinaryIO]:
  """Yields a file that takes the place of `path` when the block is left.

  A link is replaced, not followed. If the block raises, the file at `path`
  stays as it was and none is left behind. An `OSError`, also one of the
  block's, becomes a `UserError`.
  """
  with naming(path):
    if os.path.isdir(path):
      raise IsADirectoryError(None, "it is a folder")
    if "\0" in os.fsdecode(path):
      raise OSError(None, "a name with a null byte")
    replaceable = os.path.isfile(path) or os.path.islink(path)
    if os.path.exists(path) and not replaceable:
      raise OSError(None, "it is a pipe or device")
    part = _part(path)
    try:
      # "x" refuses an existing file; the mode follows the umask.
      with open(part, "xb") as file:
        _lock(file.fileno())
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(part, path)
    finally:
      with contextlib.suppress(OSError):  # It has gone if all went well.
        os.unlink(part)


def refuse_existing(path: os.PathLike | str) -> None:
  """Refuses an `--output` that exists, dangling links included."""
  if os.path.lexists(path):
    raise errors.UserError(
        f"{printable(path)}: exists, and is not overwritten; choose another"
        " --output or remove it"
    )


@contextlib.contextmanager
def writing_folder(path: os.PathLike | str) -> Iterator[pathlib.Path]:
  """Yields a new folder that is renamed to `path` when the block is left.

  If the block raises, nothing is left behind; what an earlier process left
  that was killed in its block is removed.

  Raises:
    UserError: An `OSError`, also one of the block's; `path` exists and is
      anything but an empty folder.
  """
  part = _part(path)
  with naming(path):
    remove_leftovers(path)
    os.makedirs(part)
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
      _lock(descriptor)
      yield pathlib.Path(part)
      os.rename(part, path)
    finally:
      shutil.rmtree(part, ignore_errors=True)
      os.close(descriptor)


def remove_leftovers(path: os.PathLike | str) -> None:
  """Removes what killed processes left beside `path` when they wrote it."""
  pattern = f"{glob.escape(_part_prefix(path))}{'[0-9a-f]' * 16}.part"
  for left in glob.glob(pattern):
    with contextlib.suppress(OSError):
      descriptor = os.open(left, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
      try:
        # The process that writes it, if it lives, has the lock, or is yet to
        # take it.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(descriptor).st_mtime < _LEFTOVER_SECONDS:
          continue
        if os.path.isdir(left):
          shutil.rmtree(left, ignore_errors=True)
        else:
          os.unlink(left)
      finally:
        os.close(descriptor)


def _part(path: os.PathLike | str) -> str:
  """Returns a name beside `path` that no other process has."""
  return f"{_part_prefix(path)}{secrets.token_hex(8)}.part"


def _part_prefix(path: os.PathLike | str) -> str:
  folder, name = os.path.split(os.fsdecode(path))
  # Room for what follows: a name has at most 255 bytes.
  name = os.fsdecode(os.fsencode(name)[:200])
  return os.path.join(folder, f".{name}.")


def _lock(descriptor: int) -> None:
  with contextlib.suppress(OSError):  # Not every file system has locks.
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def naming(path: os.PathLike | str) -> Iterator[None]:
  """Turns an `OSError` of the context into a `UserError` that names a path."""
  try:
    yield
  except OSError as e:
    raise errors.UserError(
        f"{printable(path)}: cannot be written ({_reason(path, e)}); expected a"
        " writable place with enough space. Mend that, or choose another place,"
        " and run the command again."
    ) from e


def printable(path: os.PathLike | str) -> str:
  """Returns a path as text that any terminal and JSON can take.

  A name that is no UTF-8 and one with a line break show as escapes.
  """
  text = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
  return "".join(
      c if c.isprintable() else c.encode("unicode_escape").decode()
      for c in text
  )


def _reason(path: os.PathLike | str, error: Exception) -> str:
  if isinstance(error, FileNotFoundError):
    with contextlib.suppress(OSError, ValueError):
      if os.path.islink(path):
        return "a link to a file that is missing"
    return "no such file"
  return getattr(error, "strerror", None) or str(error)
