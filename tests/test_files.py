"""A path leads to a regular file or to an error of one line."""

import os
import pathlib
import stat
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from ctxseg_jax import errors
from ctxseg_jax import files


class FilesTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  @parameterized.named_parameters(
      ("missing", lambda p: None, "no such file"),
      ("dangling", lambda p: p.symlink_to("nowhere"), "a link to a file that"),
      ("loop", lambda p: p.symlink_to(p.name), "symbolic links"),
      ("folder", lambda p: p.mkdir(), "a folder"),
      ("pipe", lambda p: os.mkfifo(p), "a pipe or device"),
      ("zeros", lambda p: p.symlink_to("/dev/zero"), "a pipe or device"),
      ("large", lambda p: p.write_bytes(b"12345"), "5 bytes; expected"),
  )
  def test_what_is_no_regular_file_of_sane_size_is_refused(self, make, text):
    path = self.folder / "a"
    make(path)
    with self.assertRaisesRegex(errors.UserError, text) as caught:
      files.read_bytes(path, max_bytes=4, what="a photograph")
    self.assertIn(str(path), str(caught.exception))
    self.assertIn("a photograph", str(caught.exception))

  def test_what_grows_while_it_is_read_is_refused(self):
    # Files of /proc have the size 0.
    with self.assertRaisesRegex(errors.UserError, "at most 2"):
      files.read_bytes("/proc/self/status", max_bytes=2)

  @parameterized.parameters(b"a\xff", b"a\x00")
  def test_a_path_of_any_bytes_is_a_line(self, name):
    with self.assertRaises(errors.UserError) as caught:
      files.read_bytes(os.path.join(os.fsencode(self.folder), name))
    self.assertTrue(str(caught.exception).isprintable())

  def test_text_is_utf_8_with_or_without_mark(self):
    path = self.folder / "a.txt"
    for data in (b"caf\xc3\xa9", b"\xef\xbb\xbfcaf\xc3\xa9"):
      path.write_bytes(data)
      self.assertEqual(files.read_text(path), "caf\xe9")
    path.write_bytes(b"caf\xe9")
    with self.assertRaisesRegex(errors.UserError, "byte 0xe9 at position 3"):
      files.read_text(path)

  def test_writing_replaces_a_file_and_a_link_but_not_what_it_leads_to(self):
    path, link = self.folder / "a", self.folder / "link"
    files.write_atomically(path, "one")
    files.write_atomically(path, b"two")
    self.assertEqual(path.read_bytes(), b"two")
    link.symlink_to(path)
    files.write_atomically(link, "three")
    self.assertEqual(path.read_bytes(), b"two")
    self.assertEqual(link.read_bytes(), b"three")
    umask = os.umask(0o022)
    os.umask(umask)
    self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o666 & ~umask)

  @parameterized.named_parameters(
      ("folder", lambda p: p.mkdir(), "it is a folder"),
      ("pipe", lambda p: os.mkfifo(p), "a pipe or device"),
  )
  def test_what_cannot_be_replaced_is_kept(self, make, text):
    path = self.folder / "a"
    make(path)
    before = path.lstat().st_mode
    with self.assertRaisesRegex(errors.UserError, text):
      files.write_atomically(path, "new")
    self.assertEqual(path.lstat().st_mode, before)
    self.assertLen(os.listdir(self.folder), 1)

  def test_a_folder_that_is_missing_is_named(self):
    with self.assertRaisesRegex(errors.UserError, "no such file"):
      files.write_atomically(self.folder / "none" / "a", "new")

  @parameterized.parameters("fsync", "replace")
  def test_a_full_disk_leaves_the_old_file_and_no_other(self, call):
    path = self.folder / "a"
    path.write_text("old")
    failure = OSError(28, os.strerror(28))
    with (
        mock.patch.object(os, call, side_effect=failure),
        self.assertRaisesRegex(errors.UserError, "No space left"),
    ):
      files.write_atomically(path, "new")
    self.assertEqual(path.read_text(), "old")
    self.assertLen(os.listdir(self.folder), 1)

  def test_an_interruption_and_a_bug_keep_their_type_and_leave_no_file(self):
    for failure in (KeyboardInterrupt(), ValueError("of the block")):
      with self.assertRaises(type(failure)):
        with files.writing(self.folder / "a"):
          raise failure
      self.assertEmpty(os.listdir(self.folder))

  def test_a_kill_leaves_the_old_file(self):
    path = self.folder / "a"
    path.write_text("old")
    code = (
        "import os, sys\nfrom ctxseg_jax import files\n"
        "with files.writing(sys.argv[1]) as f:\n"
        "  f.write(b'new')\n  os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    self.assertEqual(path.read_text(), "old")

  def test_a_folder_is_there_when_it_is_whole(self):
    path = self.folder / "a"
    with files.writing_folder(path) as part:
      (part / "b").write_text("c")
      self.assertFalse(path.exists())
    self.assertEqual((path / "b").read_text(), "c")
    with self.assertRaisesRegex(errors.UserError, "a: cannot be written"):
      with files.writing_folder(path) as part:
        (part / "b").write_text("d")
    with self.assertRaises(KeyError):
      with files.writing_folder(self.folder / "e"):
        raise KeyError
    self.assertEqual([x.name for x in self.folder.iterdir()], ["a"])
    self.assertEqual((path / "b").read_text(), "c")

  @parameterized.parameters("writing", "writing_folder")
  def test_what_a_killed_process_left_is_removed_and_nothing_else(self, name):
    path = self.folder / "a"
    code = f"""if True:
      import sys
      from ctxseg_jax import files
      with files.{name}(sys.argv[1]):
        print(flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
      process.stdout.readline()
      (left,) = self.folder.iterdir()
      others = [".a.part", ".a.0123456789abcdef.txt", "a.tmp"]
      for other in others:
        (self.folder / other).mkdir()
      os.utime(left, (0, 0))
      files.remove_leftovers(path)
      self.assertTrue(left.exists())  # Its process lives.
      process.kill()
    files.remove_leftovers(path)
    self.assertCountEqual([x.name for x in self.folder.iterdir()], others)


if __name__ == "__main__":
  absltest.main()
