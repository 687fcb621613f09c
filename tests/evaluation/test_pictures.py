"""Pictures of labels, tables of scores and curves of a training."""

import io
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
from matplotlib import figure
import numpy as np
from PIL import Image

from ctxseg_jax.evaluation import curves
from ctxseg_jax.evaluation import palettes
from ctxseg_jax.evaluation import pictures
from ctxseg_jax.evaluation import tables

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 0, 200))
NAMES = ("sky", "road", "tree")
LABELS = np.array([[0, 1, 2], [255, 2, 7]], np.uint8)


class LabelsTest(absltest.TestCase):

  def test_colorize_uses_the_palette_and_stripes_where_ignored(self):
    labels = np.kron([[0, 1, 2, 255, 7]], np.ones((16, 16), int))
    picture = pictures.colorize(labels, PALETTE)
    for label in range(3):
      self.assertTrue((picture[labels == label] == PALETTE[label]).all())
    for label in (255, 7):
      colors = np.unique(picture[labels == label], axis=0)
      self.assertLen(colors, 2)
      self.assertNoCommonElements(map(tuple, colors.tolist()), PALETTE)

  def test_overlay_is_a_weighted_mean(self):
    image = np.full((1, 1, 3), 100, np.uint8)
    labels = np.ones((1, 1), np.uint8)
    for opacity, expected in (
        (0.0, [100, 100, 100]),
        (0.5, [150, 50, 50]),
        (1.0, [200, 0, 0]),
    ):
      picture = pictures.overlay(image, labels, PALETTE, opacity)
      np.testing.assert_array_equal(picture[0, 0], expected)

  def test_overlay_refuses_another_size(self):
    with self.assertRaisesRegex(ValueError, "differ in size"):
      pictures.overlay(np.zeros((4, 5, 3), np.uint8), LABELS, PALETTE)


class ComparisonTest(parameterized.TestCase):

  def compare(self, shape, classes=(0, 1)):
    labels = np.resize(np.array(classes, np.uint8), shape)
    image = np.full((*shape, 3), 128, np.uint8)
    return pictures.comparison(image, labels, labels, NAMES, PALETTE)

  def has(self, picture, color):
    return (picture == np.array(color, np.uint8)).all(axis=-1).any()

  @parameterized.parameters([[(128, 128)], [(33, 80)], [(1, 1)], [(900, 500)]])
  def test_small_images_are_enlarged(self, shape):
    picture = self.compare(shape)
    self.assertEqual(picture.dtype, np.uint8)
    self.assertGreater(max(picture.shape[:2]), 3 * 200)

  def test_large_images_are_reduced(self):
    self.assertLess(max(self.compare((1030, 2050)).shape[:2]), 3 * 1024 + 200)

  def test_legend_has_the_classes_present(self):
    picture = self.compare((64, 64))
    self.assertTrue(self.has(picture, PALETTE[1]))
    # Only the legend is opaque, so a class that is not there has no pixel.
    self.assertFalse(self.has(picture, PALETTE[2]))
    picture = self.compare((64, 64), classes=(0, 2, 255))
    self.assertTrue(self.has(picture, PALETTE[2]))
    self.assertFalse(self.has(picture, PALETTE[1]))


class DistinctTest(parameterized.TestCase):

  def test_colours_that_people_can_tell_apart_are_kept(self):
    np.testing.assert_array_equal(palettes.distinct(PALETTE[1:]), PALETTE[1:])

  @parameterized.parameters(
      [[(0, 0, 0), (1, 1, 1), (2, 2, 2)]],
      [[(200, 0, 0), (201, 0, 0), (0, 9, 0), (200, 2, 1)]],
      [[(255, 255, 255)] * 12],
  )
  def test_others_give_way(self, palette):
    found = palettes.distinct(palette).astype(int)
    self.assertGreater(found.max(axis=1).min(), 100)
    for i, color in enumerate(found):
      others = np.delete(found, i, axis=0)
      self.assertGreater(np.abs(others - color).max(axis=1).min(), 45)

  def test_an_overlay_has_a_legend_of_the_classes_present(self):
    image = np.zeros((20, 30, 3), np.uint8)
    labels = np.full((20, 30), 1)
    palette = ((0, 0, 0), (1, 1, 1), (0, 200, 0))
    picture = pictures.labelled_overlay(image, labels, NAMES, palette, 1.0)
    _, road, tree = palettes.distinct(palette)
    np.testing.assert_array_equal(picture[:20, :30], np.tile(road, (20, 30, 1)))
    legend = picture[20:]
    self.assertGreater(picture.shape[1], 30)  # As wide as the name.
    self.assertTrue((legend == road).all(axis=-1).any())
    self.assertFalse((legend == tree).all(axis=-1).any())


class FilesTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(folder) / "new" / "a.png"

  def test_png_keeps_every_value(self):
    array = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    pictures.save_png(self.path, array)
    np.testing.assert_array_equal(np.asarray(Image.open(self.path)), array)

  def test_palette_png_holds_classes_and_colors(self):
    data = pictures.encode_palette_png(LABELS, PALETTE)
    with Image.open(io.BytesIO(data)) as picture:
      self.assertEqual(picture.mode, "P")
      np.testing.assert_array_equal(np.asarray(picture), LABELS)
      colors = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(colors[0], PALETTE)
    self.assertNotIn(tuple(colors[1, 0].tolist()), PALETTE)

  def test_palette_png_refuses_what_does_not_fit(self):
    with self.assertRaisesRegex(ValueError, "300"):
      pictures.encode_palette_png(np.array([[300]]), PALETTE)

  def test_curves_are_drawn_from_anything_a_run_may_have(self):
    metrics = [
        {"step": 10, "loss/total": 2.0, "loss/aux": 1.0, "learning_rate": 0.1},
        {"step": 20, "loss/total": None, "learning_rate": 0.05},
        {"step": 30, "loss/total": float("inf")},
    ]
    self.path.parent.mkdir()
    evaluations = [
        {"step": 20, "miou": 0.3, "fwiou": 0.4},
        {"step": 30, "miou": None, "fwiou": 0.5},
    ]
    scores = {"miou": "mIoU", "fwiou": "fwIoU"}
    for rows, evals, references in (
        (metrics, evaluations, {"no context": 0.395}),
        (metrics[:1], [], {}),
        ([], [], {}),
    ):
      curves.plot_curves(rows, evals, self.path, references, scores)
      with Image.open(self.path) as picture:
        self.assertGreater(min(picture.size), 400)

  def test_curves_have_every_score_and_its_name(self):
    axes = figure.Figure().subplots()
    rows = [{"step": i, "miou": i / 10, "fwiou": i / 5} for i in (1, 2)]
    scores = {"miou": "mIoU", "fwiou": "fwIoU"}
    curves._plot_scores(axes, rows, scores, {"no context": 0.1})
    drawn = {x.get_label(): list(x.get_ydata()) for x in axes.get_lines()}
    self.assertEqual(
        drawn,
        {"mIoU": [10, 20], "fwIoU": [20, 40], "no context 10.00": [10, 10]},
    )


class IouTableTest(absltest.TestCase):

  def test_table(self):
    nan = float("nan")
    table = tables.iou_table(
        {
            "class_names": ("sky", "road", "tree", "buoy"),
            "iou": [0.5, nan, 0.0, 0.0],
            "accuracy": [0.75, None, 0.0, None],
            "miou": 1 / 6,
            "pixel_accuracy": 0.6,
            "mean_accuracy": 0.375,
            "fwiou": 0.4,
            "num_classes_averaged": 3,
            "confusion_matrix": [
                [1500, 0, 0, 500],
                [0, 0, 0, 0],
                [500, 0, 0, 0],
                [0, 0, 0, 0],
            ],
        },
    )
    self.assertEqual(
        table.split("\n"),
        [
            "Class    IoU    Acc  labelled pixels  predicted pixels",
            "------------------------------------------------------",
            "sky    50.00  75.00            2,000             2,000",
            "road       -      -                0                 0"
            "  absent from labels and predictions",
            "tree    0.00   0.00              500                 0"
            "  never predicted",
            "buoy    0.00      -                0               500"
            "  absent from labels",
            "------------------------------------------------------",
            "mIoU             16.67  over 3 of 4 classes",
            "pixel accuracy   60.00  of 2,500 labelled pixels",
            "mean accuracy    37.50  over 2 labelled classes",
            "fwIoU            40.00",
        ],
    )


if __name__ == "__main__":
  absltest.main()
