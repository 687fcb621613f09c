"""Several runs side by side, from their work dirs."""

import json
import pathlib
import shutil
import tempfile

from absl.testing import absltest
import running
import tiny

from ctxseg_jax import compare


class CompareTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.runs = [self.copy(name) for name in "ab"]

  def copy(self, name):
    """Returns a copy of the finished run without its checkpoints."""
    ignore = shutil.ignore_patterns("checkpoints", "best", "tensorboard")
    path = self.folder / name
    return shutil.copytree(tiny.finished_run(), path, ignore=ignore)

  def change(self, path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

  def compare(self, *arguments):
    return running.run(compare, *arguments)

  def test_a_work_dir_stands_for_its_best_evaluation(self):
    scores = ((0, 6, 0.5), (0, 12, 0.25), (1, 6, 0.125), (1, 12, 0.375))
    for i, step, score in scores:
      self.change(self.runs[i] / "eval" / f"{step}.json", miou=score)
    self.change(self.runs[1] / "config.json", seed=7)
    code, out, err = self.compare(*self.runs)
    self.assertEqual(code, 0, err)
    lines = [line.split() for line in out.splitlines()]
    self.assertEqual(lines[0], ["a", "b", "difference"])
    self.assertIn(["mIoU", "50.00", "37.50", "-12.50"], lines)
    self.assertIn(["seed", "0", "7"], lines)
    self.assertIn(["step", "6", "12"], lines)

  def test_evaluations_can_be_named_and_a_page_written(self):
    other = self.runs[0] / "eval" / "12_split-test.json"
    shutil.copy(self.runs[0] / "eval" / "12.json", other)
    self.change(other, split="test", miou=None)
    page = self.folder / "page.html"
    files = (self.runs[0] / "eval" / "12.json", other)
    code, out, err = self.compare(*files, f"--output={page}")
    self.assertEqual(code, 0, err)
    lines = [line.split() for line in out.splitlines()]
    self.assertIn("-", next(line for line in lines if line[:1] == ["mIoU"]))
    self.assertIn('"test"', next(x for x in lines if x[:1] == ["split"]))
    self.assertIn('"split": "test"', page.read_text())
    code, _, err = self.compare(*files, f"--output={page}")
    self.assertEqual(code, 2)
    self.assertIn("not overwritten", err)

  def test_what_cannot_be_compared_is_named(self):
    self.change(self.runs[1] / "eval" / "6.json", class_names=["a"] * 17)
    self.change(self.runs[1] / "eval" / "12.json", class_names=["a"] * 17)
    empty = self.copy("empty")
    shutil.rmtree(empty / "eval")
    none = self.folder / "none"
    for arguments, message in (
        (self.runs[:1], "two or more work dirs, got 1"),
        (self.runs, r"/b: has the classes of context_scenes, expected those"),
        ((self.runs[0], empty), "/empty: no evaluation in eval/"),
        ((self.runs[0], none), "is this a work dir of train.py"),
        ((self.runs[0], self.runs[0] / "log.txt"), "no config.json"),
        ((self.runs[0], self.runs[0] / "eval/no.json"), "no config.json"),
    ):
      code, _, err = self.compare(*arguments)
      self.assertEqual(code, 2)
      self.assertRegex(err, message)


if __name__ == "__main__":
  absltest.main()
