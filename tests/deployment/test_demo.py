"""The page of a network, and what it says of a photograph."""

import importlib.util
import pathlib
import re
import socket
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
import chromium
import numpy as np
from PIL import Image
import pytest
import running
import tiny
import untrained

from ctxseg_jax import demo
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.deployment import answers
from ctxseg_jax.evaluation import pictures


def write_photograph(path, size=(64, 48)):
  """Writes a photograph of blots, (W, H)."""
  blots = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  Image.fromarray(blots).resize(size, Image.Resampling.NEAREST).save(path)
  return path


class AnswersTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.trained = experiment.load(untrained.make(self.folder / "run"))

  def test_a_picture_with_the_shares_of_classes(self):
    path = write_photograph(self.folder / "a.png")
    with mock.patch.object(answers, "_LONGEST_SIDE", 32):
      picture, table = answers.Answers(self.trained).answer(path)
    image = Image.open(path)
    (classes,) = self.trained.predict([np.asarray(image)])
    spec = self.trained.spec
    expected = pictures.labelled_overlay(
        np.asarray(image.reduce(2)),
        classes[::2, ::2],
        spec.class_names,
        spec.palette,
    )
    np.testing.assert_array_equal(picture, expected)
    counts = np.bincount(classes.ravel())
    most = spec.class_names[counts.argmax()]
    shares = re.findall(r"([\d.]+) %", table)
    self.assertAlmostEqual(sum(map(float, shares)), 100, delta=0.5)
    self.assertEqual(float(shares[0]), round(100 * counts.max() / 3072, 1))
    self.assertLess(table.index(most), table.index(shares[1]))
    self.assertIn("64x48 pixels", table)

  def test_keeps_few_programs(self):
    given = answers.Answers(self.trained)
    with mock.patch.object(answers, "_MOST_PROGRAMS", 1):
      for size in ((40, 32), (48, 32), (56, 32)):
        given.answer(write_photograph(self.folder / "a.png", size))
        self.assertEqual(given._predictor.compilations(), 1)

  def test_names_of_classes_are_text(self):
    table = answers._table(["<b>"], [1.0], [(1, 2, 3)], "")
    self.assertIn("&lt;b&gt;", table)
    self.assertNotIn("<b>", table)

  def test_what_is_no_image_is_refused(self):
    path = self.folder / "a.png"
    path.write_text("text")
    with self.assertRaisesRegex(errors.UserError, "^a.png: "):
      answers.Answers(self.trained).answer(path)


class CommandTest(absltest.TestCase):

  def test_says_what_is_missing(self):
    with (
        mock.patch.dict(sys.modules),
        mock.patch.object(importlib.util, "find_spec", return_value=None),
    ):
      code, _, err = running.run(demo, "--workdir=x")
    self.assertEqual(code, 2)
    self.assertRegex(err, r"^error: gradio is not installed; run `pip install")

  def test_refuses_a_port_in_use(self):
    with (
        socket.socket() as other,
        mock.patch.object(importlib.util, "find_spec"),
    ):
      other.bind(("127.0.0.1", 0))
      other.listen()
      port = other.getsockname()[1]
      code, _, err = running.run(demo, "--workdir=x", f"--port={port}")
    self.assertEqual(code, 2)
    self.assertRegex(err, f"^error: --port: {port} of 127.0.0.1: .* in use; ")


@pytest.mark.slow
class PageTest(absltest.TestCase):

  def test_a_dropped_photograph_is_answered(self):
    webdriver = pytest.importorskip("selenium.webdriver")
    wait_lib = pytest.importorskip("selenium.webdriver.support.wait")
    pytest.importorskip("gradio")
    if chromium.is_missing():
      self.skipTest("chromium or chromedriver is missing")
    folder = self.enterContext(tempfile.TemporaryDirectory())
    folder = pathlib.Path(folder)
    workdir = untrained.make(folder / "run")
    path = write_photograph(folder / "photo.jpg", (400, 300))
    port = tiny.free_port()
    flags = (f"--workdir={workdir}", f"--port={port}")
    command = self.enterContext(tiny.Command("-m", ("ctxseg_jax.demo", *flags)))
    address = f"http://127.0.0.1:{port}"
    self.assertTrue(command.wait_for(lambda: _listens(port)))
    with chromium.driven(webdriver, folder / "profile") as driver:
      driver.get(address)
      wait = wait_lib.WebDriverWait(driver, 60)

      def find(selector):
        found = driver.find_elements("css selector", selector)
        return found[0] if found else None

      wait.until(lambda _: find("#photograph input[type=file]")).send_keys(
          str(path)
      )
      wait.until(lambda _: "400x300 pixels" in find("#classes").text)
      shares = re.findall(r"([\d.]+) %", find("#classes").text)
      self.assertAlmostEqual(sum(map(float, shares)), 100, delta=0.5)
      picture = wait.until(lambda _: find("#prediction img"))
      wait.until(lambda _: picture.get_property("naturalWidth") >= 400)
      loaded = driver.execute_script(
          "return performance.getEntriesByType('resource').map(x => x.name)"
      )
      self.assertNotEmpty(loaded)
      elsewhere = [
          x for x in loaded if not x.startswith((address, "data:", "blob:"))
      ]
      self.assertEmpty(elsewhere)


def _listens(port):
  with socket.socket() as s:
    return s.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
  absltest.main()
