"""What is shown of a context head is what the head computed."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import flax
import jax
import networks
import numpy as np
import test_heads
import test_segmentation

from ctxseg_jax import errors
from ctxseg_jax import memory
from ctxseg_jax.data.datasets import context_scenes
from ctxseg_jax.evaluation import context_panels
from ctxseg_jax.evaluation import explanation
from ctxseg_jax.evaluation import explanation_picture
from ctxseg_jax.models.heads import double_attention
from ctxseg_jax.models.heads import HEADS

SPEC = context_scenes.SPEC
WITHOUT = {
    "deeplabv2",
    "deeplabv2_concat",
    "deeplabv3",
    "deeplabv3plus",
    "encoding_aux",  # It is not there in predictions.
    "fcn",
    "fcn_vgg",
    "pooled",
}
NAMES = sorted(HEADS.keys() - WITHOUT)


def exposed(head):
  """Returns the shapes of what a head exposes."""
  features = test_heads.make_features(channels=(8, 16, 32, 64))

  def run():
    variables = head.init(jax.random.key(0), features, train=False)
    assert "intermediates" not in variables
    out, state = head.apply(
        variables, features, train=False, mutable=["intermediates"]
    )
    return out, state.get("intermediates", {})

  out, found = jax.eval_shape(run)
  found = flax.traverse_util.flatten_dict(found, sep="/")
  arrays = {name: x for name, (x,) in found.items()}
  return arrays | {name: x for name, x in out.items() if x.ndim == 2}


def see(head, arrays, place=(0.3, 0.8)):
  names = [f"class {i}" for i in range(5)]
  return context_panels.Seen(head, arrays, place, names)


def make_explainer(head, size, num_devices=1, **settings):
  """Returns what explains a tiny network, and its variables."""
  backbone = dict(name="shallow", channels=8)
  classes = SPEC.num_classes
  model = networks.build(backbone, dict(channels=8, **head), classes)
  variables = networks.uniform(model, size, kernels=0.5)
  predictor, _ = test_segmentation.make_predictor(
      model, variables, num_devices, **settings
  )
  return explanation.Explainer(predictor, variables, SPEC), variables


def make_image(*size):
  return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


class PanelsTest(parameterized.TestCase):

  @parameterized.parameters(*HEADS)
  def test_what_is_exposed_is_shown(self, name):
    head = test_heads.small_head(name)
    shapes = exposed(head)
    if name in WITHOUT:
      with self.assertRaisesRegex(
          errors.UserError, f"'{name}' has no .* danet"
      ):
        context_panels.check(head)
      return
    self.assertEqual(context_panels.check(head), name)
    rng = np.random.default_rng(0)
    arrays = {k: rng.uniform(size=x.shape[1:]) for k, x in shapes.items()}
    panels = context_panels.make(see(head, arrays))
    self.assertNotEmpty(panels)
    for panel in panels:
      dims = {"classes": 1, "bars": 1, "colors": 3}.get(panel.kind, 2)
      self.assertEqual(panel.values.ndim, dims, panel.title)
      self.assertTrue(np.isfinite(panel.values).all(), panel.title)
    # Each array makes a difference.
    for name, x in arrays.items():
      changed = context_panels.make(see(head, arrays | {name: np.flip(x)}))
      different = [
          a.labels != b.labels or not np.array_equal(a.values, b.values)
          for a, b in zip(panels, changed, strict=True)
      ]
      seldom = name.startswith(("stage2", "stage3"))  # As in the paper.
      self.assertEqual(any(different), not seldom, name)

  def test_distances_of_attention_are_those_to_the_point(self):
    head = test_heads.small_head("sanet")
    arrays = {k: np.zeros(x.shape[1:]) for k, x in exposed(head).items()}
    attention = arrays["stage4_attention/attention"]
    attention[2, 6, :2] = (3.0, 4.0)
    panels = context_panels.make(see(head, arrays, (0.25, 0.75)))
    (distance,) = (x.values for x in panels if "head 4: att" in x.title)
    self.assertEqual(distance[2, 6], 0.0)
    np.testing.assert_array_equal(np.delete(distance.ravel(), 22), 5.0)

  def test_a_context_head_around_another_shows_both(self):
    host = test_heads.make_head("encnet", num_classes=5, channels=16)
    head = dataclasses.replace(test_heads.small_head("sca"), host=host)
    shapes = exposed(head)
    arrays = {k: np.ones(x.shape[1:]) for k, x in shapes.items()}
    titles = " ".join(x.title for x in context_panels.make(see(head, arrays)))
    self.assertIn("dependency", titles)
    self.assertIn("codeword", titles)

  @parameterized.parameters("descriptors", "positions")
  def test_double_attention_of_a_point_makes_its_output(self, softmax):
    features, *logits = (networks.normal(i, 1, 12, 5) for i in range(3))
    z, gather, distribute = double_attention.double_attention(
        features, *logits, softmax
    )
    arrays = {
        "gather_weights": np.reshape(gather, (3, 4, 5)),
        "distribute_weights": np.reshape(distribute, (3, 4, 5)),
        "before": np.ones((3, 4, 2)),
        "added": np.ones((3, 4, 2)),
    }
    arrays = {f"double_attention/{k}": x for k, x in arrays.items()}
    head = test_heads.small_head("double_attention")
    panels = context_panels.make(see(head, arrays, (0.5, 0.9)))
    weights = panels[0].values.ravel()
    np.testing.assert_allclose(weights @ features[0], z[0, 7], rtol=1e-5)


class ExplainerTest(parameterized.TestCase):

  def test_attention_in_blocks_is_shown_as_in_the_paper(self):
    head = dict(name="nonlocal", chunk_size=5)
    explainer, variables = make_explainer(head, (24, 32), num_devices=2)
    image = make_image(24, 32)
    found = explainer(image, (21, 9), np.zeros((24, 32), np.uint8))
    shown = found.panels[0].values
    self.assertEqual(shown.shape, (6, 8))
    block = variables["params"]["head"]["non_local"]
    x = found.arrays["non_local/before"].reshape(48, 8)
    queries, keys = (
        x @ block[name]["kernel"] + block[name]["bias"]
        for name in ("query", "key")
    )
    # The cells are 4x4 pixels: the point is in row 2, column 5.
    products = [queries[2 * 8 + 5] @ key / np.sqrt(4) for key in keys]
    weights = np.exp(products) / np.sum(np.exp(products))
    np.testing.assert_allclose(shown.ravel(), weights, rtol=1e-3, atol=1e-6)
    # Of these weights the network made what it added there.
    values = x @ block["value"]["kernel"] + block["value"]["bias"]
    y = weights @ values @ block["out"]["kernel"]
    norm = variables["batch_stats"]["head"]["non_local"]["bn"]
    y = (y - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)
    y = y * block["bn"]["scale"] + block["bn"]["bias"]
    added = found.arrays["non_local/added"][2, 5]
    np.testing.assert_allclose(added, y, rtol=1e-3, atol=1e-3)
    picture = explanation_picture.draw(found, SPEC.class_names, SPEC.palette)
    self.assertEqual(picture.dtype, np.uint8)

  def test_an_image_too_large_for_the_memory_is_made_smaller(self):
    head = dict(name="fcn_se")
    explainer, _ = make_explainer(head, (64, 64))
    image = make_image(256, 192)
    needed = memory.program_bytes(explainer._compile((256, 192)))
    predictor = explainer._predictor
    predictor.bound = lambda: (0.3 * needed, True)
    found = explainer(image, (150, 20), np.zeros((256, 192), np.uint8))
    height, width = found.image.shape[:2]
    self.assertLess(height, 256)
    self.assertGreater(height, 64)
    self.assertAlmostEqual(height / width, 256 / 192, delta=0.05)
    self.assertEqual(found.prediction.shape, (height, width))
    (note,) = found.notes
    self.assertStartsWith(note, f"at {width}x{height} instead of 192x256")
    self.assertIn("memory_gb", note)
    predictor.bound = lambda: (100.0, True)
    with self.assertRaisesRegex(errors.UserError, "--explain: 64x48 .* memory"):
      explainer(image, None, np.zeros((256, 192), np.uint8))

  @parameterized.parameters(
      ((0, 0), (0, 0)), ((99, 69), (39, 29)), ((50, 30), (20, 15))
  )
  def test_windows_show_the_point(self, point, expected):
    image = make_image(70, 100)
    place = [(i + 0.5) / n for i, n in zip(point[::-1], (70, 100), strict=True)]
    labels = np.arange(7000, dtype=np.uint16).reshape(70, 100)
    pad = np.zeros(3, np.uint8)
    cut, classes, place = explanation._cut(image, labels, place, (30, 40), pad)
    x, y = (int(p * n) for p, n in zip(place[::-1], (40, 30), strict=True))
    self.assertEqual((x, y), expected)
    np.testing.assert_array_equal(cut[y, x], image[point[::-1]])
    self.assertEqual(classes[y, x], labels[point[::-1]])

  def test_small_images_are_padded_to_the_window(self):
    image = make_image(10, 100)
    labels = np.zeros((10, 100), np.uint8)
    cut, classes, place = explanation._cut(
        image, labels, (0.75, 0.005), (30, 40), np.full(3, 7, np.uint8)
    )
    np.testing.assert_array_equal(cut[:10], image[:, :40])
    np.testing.assert_array_equal(cut[10:], 7)
    np.testing.assert_array_equal(classes[10:], 255)
    np.testing.assert_allclose(place, (7.5 / 30, 0.5 / 40))

  @parameterized.parameters("", "3", "1,2,3", "a,b", "1.5,2")
  def test_a_point_is_two_integers(self, text):
    with self.assertRaisesRegex(errors.UserError, "--point: expected x,y"):
      explanation.parse_point(text)

  @parameterized.parameters((-1, 0), (48, 0), (0, 32))
  def test_a_point_outside_is_refused(self, x, y):
    self.assertEqual(explanation.check_point(None, (32, 48), "a"), (24, 16))
    self.assertEqual(explanation.check_point((47, 31), (32, 48), "a"), (47, 31))
    with self.assertRaisesRegex(errors.UserError, "outside a.png, .* 48 wide"):
      explanation.check_point((x, y), (32, 48), "a.png")


if __name__ == "__main__":
  absltest.main()
