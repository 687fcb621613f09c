"""Tiles change nothing but memory where the network sees no farther."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import test_segmentation

from ctxseg_jax import errors
from ctxseg_jax.evaluation import segmentation
from ctxseg_jax.evaluation import tiling
from ctxseg_jax.models import resizing


class StridedModel(nn.Module):
  """A network of stride 8 that sees 15 pixels to each side, and no farther."""

  align_corners: bool = False

  @nn.compact
  def __call__(self, images, *, train=False, upsample=True):
    x = images
    for i in range(3):
      x = nn.Conv(4, (3, 3), strides=2, padding=1, name=f"conv{i}")(x)
    x = nn.Conv(5, (1, 1), name="classify")(jnp.tanh(x))
    if upsample:
      kw = dict(align_corners=self.align_corners)
      x = resizing.resize_bilinear(x, images.shape[1:3], **kw)
    return {"logits": x}


class SmallTiles(segmentation.Predictor):
  """Tries nothing larger than tiles with cores of 64 pixels."""

  def _make_tiles(self, variables, shapes, sizes, number, most):
    return super()._make_tiles(variables, shapes, sizes, number, most or 64)


def make_pair(model, num_devices=1, **fields):
  """Returns a predictor of whole images, one of tiles, and variables."""
  fields = dict(tile_margin=32) | fields
  whole, variables = test_segmentation.make_predictor(
      model, num_devices=num_devices, **fields
  )

  def make(kind):
    return kind(
        model,
        whole.mesh,
        mean=whole.mean,
        std=(60.0,) * 3,
        settings=whole.settings,
        align_corners=model.align_corners,
    )

  return make(segmentation.Predictor), make(SmallTiles), variables


class TilesTest(parameterized.TestCase):

  @parameterized.named_parameters(
      ("whole", {}),
      ("align_corners", dict(align_corners=True)),
      ("padded", dict(max_canvases=1)),
      ("views", dict(scales=(0.75, 1.3), flip=True)),
      ("sides", dict(short_side=110, long_side=270, max_canvases=1, flip=True)),
      ("slide", dict(mode="slide", crop_size=(32, 48))),
      (
          "slide_views",
          dict(
              mode="slide",
              crop_size=(32, 48),
              scales=(0.8,),
              flip=True,
              max_canvases=1,
          ),
      ),
      (
          "slide_merged",
          dict(
              mode="slide",
              merge="pytorch_encoding",
              crop_size=(32, 48),
              scales=(0.8,),
              flip=True,
              max_canvases=1,
          ),
      ),
      ("devices", dict(num_devices=2)),
  )
  def test_tiles_predict_what_whole_images_do(self, fields):
    model = StridedModel(fields.pop("align_corners", False))
    sizes = [(97, 290), (91, 250)] if "max_canvases" in fields else [(97, 290)]
    images = test_segmentation.make_images(*sizes)
    whole, tiles, variables = make_pair(model, **fields)
    expected = whole.predict(variables, images, probabilities=True)
    found = tiles.predict(variables, images, probabilities=True)
    self.assertTrue(tiles.tiled())
    self.assertFalse(whole.tiled())
    for a, b in zip(expected, found, strict=True):
      self.assertGreater(np.ptp(a), 0.1)
      np.testing.assert_allclose(b, a, atol=1e-6)

  def test_a_bound_of_memory_makes_tiles_and_is_kept(self):
    [image] = test_segmentation.make_images((300, 420))
    whole, variables = test_segmentation.make_predictor(StridedModel())
    expected = whole.predict(variables, [image])[0]
    fields = dict(tile_margin=32)
    tiles, _ = test_segmentation.make_predictor(
        StridedModel(), memory_gb=0.001, **fields
    )
    with self.assertLogs(level="INFO") as logged:
      np.testing.assert_array_equal(
          tiles.predict(variables, [image])[0], expected
      )
    self.assertIn("the bound is 0.001 GB (memory_gb)", logged.output[-1])
    self.assertRegex(tiles.tiled()[0], "300x420 in .* tiles of")
    # What has to be compiled on the way is not a compilation per try.
    self.assertLess(tiles.compilations(), 6)
    least, _ = test_segmentation.make_predictor(
        StridedModel(), memory_gb=1e-6, **fields
    )
    with self.assertRaisesRegex(
        errors.UserError, "1 image of .*needs.*more than memory_gb.*raise it"
    ) as caught:
      least.predict(variables, [image])
    self.assertNotIn("\n", str(caught.exception))


class GeometryTest(parameterized.TestCase):

  @parameterized.parameters((100, 30), (100, 100), (7, 64), (1000, 256))
  def test_cores_cover_the_image_once_or_nearly_so(self, length, most):
    cores = tiling.cores(length, most)
    self.assertLen({stop - start for start, stop in cores}, 1)
    self.assertLessEqual(cores[0][1], most)
    covered = np.zeros(length, int)
    for start, stop in cores:
      covered[start:stop] += 1
    self.assertEqual(covered.min(), 1)
    self.assertLess(covered.sum(), length + len(cores))

  def test_boxes_show_the_margin_and_lie_on_the_strides(self):
    cores = tiling.cores(1001, 200)
    axis = tiling.make_axis(
        1001, cores, [(1001, 1001)], margin=40, windows=None
    )
    axis = dataclasses.replace(axis, coarse=1001, coarse_box=axis.box)
    for core in cores:
      place = axis.place(core, 1001, 1001, False)
      self.assertEqual(place.start % tiling.ALIGNMENT, 0)
      self.assertLessEqual(place.start, max(0, core[0] - 40))
      self.assertGreaterEqual(place.start + axis.box, min(1001, core[1] + 40))
    self.assertEqual(place.start + axis.box, 1001)


if __name__ == "__main__":
  absltest.main()
