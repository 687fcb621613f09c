"""Tests for ctxseg_jax.data.browse."""

import dataclasses
import itertools
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import miniatures
import numpy as np
from PIL import Image
import running
import test_configs

from configs import custom as custom_config
from ctxseg_jax import experiment
from ctxseg_jax.data import browse
from ctxseg_jax.data import pipeline
from ctxseg_jax.data import records
from ctxseg_jax.data import transforms
from ctxseg_jax.data.datasets import DATASETS
from ctxseg_jax.evaluation import pictures

ROOT = pathlib.Path(__file__).parents[2]


def _sided_configs():
  """Yields configs of published data with `short_side` or `long_side`."""
  for path in test_configs.PATHS:
    if path == "configs/custom.py":  # Asks for a folder.
      continue
    seen = []
    for variant in test_configs.networks(test_configs.load(path)):
      config = test_configs.load(path).get_config(variant).to_dict()
      sides = [config["data"].get(k) for k in ("short_side", "long_side")]
      if any(sides) and sides not in seen:
        seen.append(sides)
        yield f"{path}:{variant}".rstrip(":"), config


class _Photos:
  """Examples of several sizes, as records are."""

  def __len__(self):
    return 5

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    size = (60 + 10 * index, 90)
    return {
        "image": rng.integers(0, 256, (*size, 3), np.uint8),
        "label": rng.integers(0, 2, size, np.uint8),
        "name": str(index),
    }

  def record(self, index):
    return {"name": str(index).encode()}


class BrowseTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.root = self.folder / "own"
    self.output = self.folder / "new" / "pages"

  def browse(self, *flags):
    return running.run(browse, f"--output={self.output}", *flags)

  def shown(self, *flags):
    """Returns what the command would write, with photos for any dataset."""
    with (
        mock.patch.object(records, "open_source", return_value=_Photos()) as o,
        mock.patch.object(
            browse, "write_pages", return_value=[self.output / "a.png"]
        ) as write,
    ):
      code, _, err = self.browse("--num_images=3", *flags)
    self.assertEqual(code, 0, err)
    shown, spec, _ = write.call_args.args
    self.assertIs(o.call_args.args[0], spec)
    return shown, spec, o.call_args.args[1:]

  def assert_shown(self, shown, augmentation, **options):
    """Holds samples against the examples of training batches."""
    expected = _examples(_Photos(), augmentation, **options)
    for (_, *arrays), others in zip(shown, expected, strict=False):
      for array, other in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(array, other)

  @parameterized.parameters(*_sided_configs())
  def test_pixels_are_those_of_training(self, name, config):
    shown, spec, _ = self.shown(f"--config={ROOT / name}")
    # Field by field from the file, not by what the command calls itself.
    data = config["data"]
    fields = {f.name for f in dataclasses.fields(transforms.Augmentation)}
    augmentation = transforms.Augmentation(
        **{key: value for key, value in data.items() if key in fields},
        pad_color=data["mean"],
        ignore_label=spec.ignore_label,
    )
    options = {key: config[key] for key in ("batch_size", "seed")}
    self.assert_shown(shown, augmentation, **options)

  def test_a_dataset_without_a_config(self):
    shown, spec, opened = self.shown("--dataset=camvid", "--seed=3")
    self.assertIs(spec, DATASETS["camvid"])
    self.assertEqual(opened, ("train", "data"))
    augmentation = transforms.Augmentation(
        crop_size=(480, 480),
        scale_range=(0.5, 2.0),
        flip=True,
        pad_color=spec.mean,
        ignore_label=255,
    )
    self.assert_shown(shown, augmentation, batch_size=12, seed=3)
    _, _, opened = self.shown("--dataset=camvid", "--split=val", "--data_dir=x")
    self.assertEqual(opened, ("val", "x"))

  def test_pages_hold_the_batches_of_training(self):
    miniatures.write_custom(self.root)
    config = custom_config.get_config("smoke")
    config.data.crop_size = (48, 48)
    config.data.root = str(self.root)
    config.data.data_dir = str(self.folder / "data")
    run = experiment.parse(config)
    source = records.open_source(run.spec, "train", run.data.data_dir)
    options = dict(batch_size=8, seed=3)
    samples = browse.samples(run.spec, source, run.augmentation, **options)
    shown = list(itertools.islice(samples, 13))
    pages = browse.write_pages(shown, run.spec, self.output)
    self.assertEqual([p.name for p in pages], ["page_001.png", "page_002.png"])
    self.assertEqual(sorted(self.output.iterdir()), pages)
    examples = _examples(source, run.augmentation, **options)
    images = [image for image, _ in itertools.islice(examples, 12)]
    page = np.array(Image.open(pages[0]))
    # Samples are 48x48, four times enlarged, below their titles.
    factor = 384 // (2 * 48)
    for image in images:
      tile = image.repeat(factor, 0).repeat(factor, 1)
      places = [page[y : y + 192, x : x + 192] for y, x in _starts(page, tile)]
      self.assertTrue(any(np.array_equal(place, tile) for place in places))

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

  @parameterized.parameters(
      (("--dataset=camvid", "--source=x"), "--source: goes with"),
      ((), "expected --config or --dataset"),
      (("--dataset=cifar10_stand_in",), "one class per image"),
      (("--dataset=cmavid",), "did you mean 'camvid'"),
  )
  def test_flags_that_do_not_fit(self, flags, words):
    code, _, err = self.browse(*flags)
    self.assertEqual(code, 2)
    self.assertStartsWith(err, "error: ")
    self.assertIn(words, err)

  def test_places(self):
    miniatures.write_custom(self.root)
    flags = ("--dataset=custom", f"--source={self.root}")
    flags += (f"--data_dir={self.folder / 'data'}",)
    _, _, err = self.browse(*flags, "--split=vla")
    self.assertIn("no split 'vla'", err)
    self.output.parent.write_text("")
    _, _, err = self.browse(*flags)
    self.assertIn(str(self.output.parent), err)
    self.output.parent.unlink()
    code, out, err = self.browse(*flags)
    self.assertEqual(code, 0, err)
    self.assertIn("12 samples on 1 pages", out)
    self.assertLen(list(self.output.glob("page_*.png")), 1)


def _examples(source, augmentation, **options):
  for batch in pipeline.train_batches(source, augmentation, **options):
    yield from zip(batch["image"], batch["label"], strict=True)


def _starts(page, tile):
  """Yields where the first row of a tile is in a page."""
  first = (page == tile[0, 0]).all(axis=-1)
  for y, x in np.argwhere(first):
    if np.array_equal(page[y, x : x + tile.shape[1]], tile[0]):
      yield y, x


if __name__ == "__main__":
  absltest.main()
