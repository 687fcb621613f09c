"""VGG16 and its FCNs: sizes, PyTorch's numbers, options.

`golden/make_torch_vgg.py` computed what is compared with PyTorch.
"""

from absl.testing import parameterized
import foreign
import jax
import jax.numpy as jnp
import mmseg_names
import networks
import numpy as np
import test_mmseg_parity as parity

from ctxseg_jax import errors
from ctxseg_jax.models import max_pooling
from ctxseg_jax.models import resizing
from ctxseg_jax.models.backbones import vgg
from ctxseg_jax.models.heads import fcn_vgg

FILE = "torch_vgg.npz"

FCN = dict(name="vgg16", form="fcn")
DILATED = dict(name="vgg16", form="dilated")
DEEPLAB = dict(name="vgg16", form="deeplab")
# As in the golden file, and narrow.
NARROW = dict(channels=3)
NETWORKS = {
    "fcn_32s": (FCN, dict(name="fcn_vgg", form="32s", channels=8)),
    "fcn_16s": (
        FCN,
        dict(name="fcn_vgg", form="16s", at_once=False, channels=8),
    ),
    "fcn_8s": (FCN, dict(name="fcn_vgg", form="8s", at_once=False, channels=8)),
    "fcn_8s_at_once": (FCN, dict(name="fcn_vgg", form="8s", channels=8)),
    "fcn_dilated": (DILATED, dict(name="fcn_vgg", channels=8)),
    "deeplab_vgg": (
        DEEPLAB,
        dict(name="deeplabv2", channels=8, rates=(1, 2, 4, 6)),
    ),
    "deeplab_direct": (DEEPLAB, dict(name="deeplabv2", rates=(1, 2, 4, 6))),
}


def rows(names):
  """Returns the rows of a state dict that is named after our tree."""
  found = []
  for name in names:
    *path, kind = name.split(".")
    ours = dict(weight=("linear", "kernel"), bias=("same", "bias"))[kind]
    found.append(foreign.Row(name, ours[0], ("params", *path, ours[1])))
  return found


def load(golden, model):
  """Returns variables of the golden file's weights."""
  _, template = networks.abstract(model)
  return foreign.convert(
      parity.tensors(golden), rows(golden.shapes()), template
  )


class OperatorsTest(parity.ParityTestCase):

  @parameterized.named_parameters(*parity.named(FILE, "pool"))
  def test_max_pool_rounds_as_pytorch(self, name):
    window, stride, padding, h, w = parity.numbers(name)
    golden = parity.Golden(FILE, name)
    x = mmseg_names.make_tensor(f"{name}.features", (1, 2, h, w))
    for key, ceil_mode in (("down", False), ("up", True)):
      out = max_pooling.max_pool(
          jnp.asarray(parity.nhwc(x - 3.0)),
          window=window,
          stride=stride,
          padding=padding,
          ceil_mode=ceil_mode,
      )
      np.testing.assert_array_equal(out, parity.nhwc(golden[key]))

  @parameterized.named_parameters(*parity.named(FILE, "transposed"))
  def test_upsampling_is_a_transposed_convolution(self, name):
    stride, h, w = parity.numbers(name)
    x = mmseg_names.make_tensor(f"{name}.features", (1, 2, h, w))
    expected = parity.nhwc(parity.Golden(FILE, name)["out"])

    out = resizing.upsample_transposed(jnp.asarray(parity.nhwc(x)), stride)
    cut = resizing.upsample_transposed(
        jnp.asarray(parity.nhwc(x)), stride, offset=1, size=(2, 3)
    )

    self.assert_near(out, expected, atol=1e-5)
    self.assert_near(cut, expected[:, 1:3, 1:4], atol=1e-5)


class NetworksTest(parity.ParityTestCase):

  def test_every_golden_case_is_compared(self):
    self.assertSameElements(
        NETWORKS, [name for name, _ in parity.named(FILE, "net")]
    )

  @parameterized.named_parameters((k, k) for k in NETWORKS)
  def test_logits_and_sizes(self, name):
    backbone, head = NETWORKS[name]
    golden = parity.Golden(FILE, f"net/{name}")
    # DeepLab's logits are compared before their upsampling.
    upsampled = not name.startswith("deeplab")
    head = dict(head, dropout_rate=0.0)
    model = networks.build(
        backbone | NARROW, head, upsample_in_training=upsampled
    )
    variables = load(golden, model)
    apply = jax.jit(lambda x: model.apply(variables, x, train=True))
    for i in range(2):
      shape = tuple(golden[f"shape{i}"])
      images = parity.nhwc(mmseg_names.make_tensor(f"{i}.images", shape))

      features, _ = networks.abstract(model.backbone, images)
      out = apply(images)["logits"]

      for stage in vgg.NAMES:
        self.assertSequenceEqual(
            features[stage].shape[1:3], tuple(golden[f"size{i}/{stage}"])
        )
      expected = parity.nhwc(golden[f"logits{i}"])
      self.assert_relatively_near(out[:, ::3], expected, rtol=1e-4, name=name)


class VGG16Test(parameterized.TestCase):

  # Sizes after each pooling by hand: 100 pixels of padding add 198 and the 2
  # of every convolution; Caffe rounds up.
  @parameterized.parameters(
      ("fcn", 500, (349, 175, 88, 44, 22)),
      ("fcn", 1, (100, 50, 25, 13, 7)),
      ("dilated", 512, (256, 128, 64, 32, 32)),
      ("deeplab", 321, (161, 81, 41, 41, 41)),
      ("deeplab", 320, (161, 81, 41, 41, 41)),
  )
  def test_sizes(self, form, size, expected):
    backbone = vgg.VGG16(form=form, channels=2)
    features, _ = networks.abstract(backbone, (size, 64))
    self.assertSequenceEqual(
        [features[name].shape[1] for name in vgg.NAMES], expected
    )
    self.assertEqual("image" in features, form == "fcn")


class FCNVGGHeadTest(parameterized.TestCase):

  def test_crops_put_every_score_where_it_was_computed(self):
    # Centres of the samples of each map in the image, and their distance.
    first, step = 1 - vgg.FORMS["fcn"].image_padding, 1
    pools = []
    for _ in range(5):
      first, step = first + step / 2, 2 * step
      pools.append(first)
    fc6 = first + 3 * step  # 7x7 without padding.

    def center(stride):
      # Where the second of three samples ends up.
      column = resizing.transposed_matrix(3, stride)[:, 1]
      return np.sum(column * np.arange(len(column))) / np.sum(column)

    # The first score twice as dense lies where sample 5 of pool4 does, and so
    # on.
    pool4 = pools[3] + 16 * fcn_vgg.SKIPS[0].offset
    self.assertEqual(pool4 + 16 * center(2), fc6 + 32)
    pool3 = pools[2] + 8 * fcn_vgg.SKIPS[1].offset
    self.assertEqual(pool3 + 8 * center(2), pool4 + 16)
    for (stride, offset), first in zip(
        fcn_vgg.STRIDES.values(), (fc6, pool4, pool3), strict=True
    ):
      self.assertEqual(center(stride) - offset, first + stride)

  def test_scores_of_the_paper_start_at_zero(self):
    sizes = dict(image=8, stage2=26, stage3=13, stage4=7)
    features = {
        name: jax.random.normal(jax.random.key(size), (1, size, size, 3))
        for name, size in sizes.items()
    }
    head = fcn_vgg.FCNVGGHead(num_classes=5, form="8s", channels=4)
    variables = networks.initialize(head, features)

    def loss(params, at_once):
      module = head.clone(at_once=at_once)
      out = module.apply({"params": params}, features, train=False)["logits"]
      weights = jax.random.normal(jax.random.key(1), out.shape)
      return jnp.sum(out * weights), out

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    grads, out = gradient(variables["params"], False)
    self.assertEqual(out.shape, (1, 8, 8, 5))
    np.testing.assert_array_equal(out, 0.0)
    for name, grad in grads.items():
      largest = max(np.abs(x).max() for x in jax.tree.leaves(grad))
      # Nothing reaches what lies before scores that are zero.
      if name in ("fc6", "fc7"):
        self.assertEqual(largest, 0.0, name)
      else:
        self.assertGreater(largest, 1e-2, name)
    at_once, _ = gradient(variables["params"], True)
    for name, scale in (("score_pool4", 0.01), ("score_pool3", 0.0001)):
      np.testing.assert_allclose(
          at_once[name]["kernel"], scale * grads[name]["kernel"], rtol=1e-3
      )

  def test_a_backbone_without_the_padding_is_refused(self):
    model = networks.build(
        dict(name="vgg16", channels=2),
        dict(name="fcn_vgg", form="8s", channels=4),
    )
    with self.assertRaisesRegex(errors.UserError, "'vgg16' with form='fcn'"):
      networks.abstract(model)
