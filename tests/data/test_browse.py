"""Tests for ctxseg_jax.data.browse."""

import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image

from configs import custom as custom_config
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.data import browse
from ctxseg_jax.data import pipeline
from ctxseg_jax.data import records
from ctxseg_jax.evaluation import pictures

ROOT = pathlib.Path(__file__).parents[2]


class BrowseTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.root = self.folder / "own"
    self.output = self.folder / "new" / "pages"
    miniatures.write_custom(self.root)

  def section(self, **changes):
    config = custom_config.get_config("smoke").to_dict()
    own = {"root": str(self.root), "data_dir": str(self.folder / "data")}
    return config["data"] | own | changes

  def browse(self, section, num_images=4):
    return browse.browse(
        section, self.output, num_images=num_images, batch_size=8, seed=3
    )

  def test_pages_hold_the_batches_of_training(self):
    section = self.section()
    pages = self.browse(section, num_images=13)
    self.assertEqual([p.name for p in pages], ["page_001.png", "page_002.png"])
    self.assertEqual(sorted(self.output.iterdir()), pages)

    config = custom_config.get_config("smoke").to_dict() | {"data": section}
    run = experiment.parse(config)
    source = records.open_source(run.spec, "train", section["data_dir"])
    batches = pipeline.train_batches(
        source, run.augmentation, batch_size=8, seed=3
    )
    images = np.concatenate([next(batches)["image"] for _ in range(2)])
    batches.close()
    page = np.array(Image.open(pages[0]))
    # Samples are 48x48, four times enlarged, below their titles.
    factor = 384 // (2 * 48)
    for i in range(12):
      tile = images[i].repeat(factor, 0).repeat(factor, 1)
      self.assertTrue(
          any(
              np.array_equal(page[y : y + 192, x : x + 192], tile)
              for y, x in _starts(page, tile)
          ),
          i,
      )

  def test_the_legend_has_the_classes_present(self):
    labels = [np.full((32, 48), i, np.uint8) for i in (0, 2)]
    image = np.full((32, 48, 3), 128, np.uint8)
    palette = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    picture = pictures.grid(
        [("a" * 200, image, labels[0]), ("b", image, labels[1])],
        ("one", "two", "three"),
        palette,
    )
    # Only the legend is opaque.
    present = [(picture == color).all(axis=-1).any() for color in palette]
    self.assertEqual(present, [True, False, True])

  @parameterized.parameters((2000, 100), (1, 1), (7, 900), (480, 480))
  def test_samples_of_any_size(self, height, width):
    image = np.zeros((height, width, 3), np.uint8)
    picture = pictures.grid(
        [("name", image, image[..., 0])] * 5, ("one", "two"), ((9, 9, 9),) * 2
    )
    self.assertLess(max(picture.shape), 2500)
    self.assertGreater(picture.shape[1], 100)

  def test_a_published_dataset(self):
    with self.assertRaisesRegex(errors.UserError, "one class per image"):
      self.browse(self.section(name="cifar10_stand_in"))

  def test_faults_are_told(self):
    with self.assertRaisesRegex(errors.UserError, "no split 'vla'"):
      self.browse(self.section(train_split="vla"))
    self.output.parent.write_text("")
    with self.assertRaisesRegex(errors.UserError, "cannot be written"):
      self.browse(self.section())

  def test_the_command(self):
    for flags, code, words in (
        (("--dataset=camvid", "--source=x"), 2, "--source: goes with"),
        (
            ("--dataset=custom", f"--source={self.root}"),
            0,
            "12 samples on 1 pages",
        ),
    ):
      done = subprocess.run(
          [sys.executable, "-m", "ctxseg_jax.data.browse", *flags]
          + [f"--output={self.output}", f"--data_dir={self.folder / 'data'}"],
          cwd=ROOT,
          capture_output=True,
          text=True,
          timeout=120,
      )
      self.assertEqual(done.returncode, code, done.stderr)
      self.assertIn(words, done.stdout if code == 0 else done.stderr)
      self.assertNotIn("Traceback", done.stderr)
    self.assertLen(list(self.output.glob("page_*.png")), 1)


def _starts(page, tile):
  """Yields where the first row of a tile is in a page."""
  first = (page[:, :, :] == tile[0, 0]).all(axis=-1)
  for y, x in np.argwhere(first):
    if np.array_equal(page[y, x : x + tile.shape[1]], tile[0]):
      yield y, x


if __name__ == "__main__":
  absltest.main()
