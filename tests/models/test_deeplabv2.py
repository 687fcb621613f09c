"""DeepLabV2: its scales and four losses, its ResNet, its heads.

`golden/make_torch_vgg.py` computed what is compared with PyTorch.
"""

from absl.testing import parameterized
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import networks
import numpy as np
import pytest
import test_mmseg_parity as parity
import test_vgg

from configs.voc import deeplabv2 as config_lib
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.models import network
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.training import step as step_lib

FILE = "torch_vgg.npz"
SCALES = (1.0, 0.75, 0.5)
OUTPUTS = ("logits", "scale100_logits", "scale75_logits", "scale50_logits")
MSRA = dict(
    depth=50,
    stem="7x7",
    dilation="uniform",
    stride_in_1x1=True,
    ceil_pool=True,
)
TERM = dict(loss="softmax_cross_entropy")


def build(**fields):
  """Builds the network of the golden file's case."""
  head = dict(
      name="deeplabv2", channels=8, rates=(1, 2, 4, 6), dropout_rate=0.0
  )
  backbone = dict(name="vgg16", form="deeplab", channels=3)
  return networks.build(backbone, head, **fields)


class ScalesTest(parity.ParityTestCase):

  def setUp(self):
    super().setUp()
    self.golden = parity.Golden(FILE, "scales")
    images = self.golden["images"].astype(np.float32)
    self.images = (parity.nhwc(images) - 127) / 60
    self.network = parity.Golden(FILE, "net/deeplab_vgg")

  def test_outputs_of_training_keep_the_size_of_the_head(self):
    model = build(scales=SCALES, upsample_in_training=False)
    variables = test_vgg.load(self.network, model)
    out = jax.jit(lambda x: model.apply(variables, x, train=True))(self.images)
    self.assertSameElements(out, OUTPUTS)
    for name, x in out.items():
      expected = parity.nhwc(self.golden[name])
      self.assert_relatively_near(x, expected, rtol=1e-4, name=name)
    fused = out["logits"] - out["scale100_logits"]
    self.assertGreaterEqual(float(fused.min()), 0.0)
    self.assertGreater(float(jnp.mean(fused > 0)), 0.2)

  def test_evaluation_fuses_at_the_size_of_scale_1_and_upsamples(self):
    model = build(scales=SCALES)
    variables = test_vgg.load(self.network, model)
    out = jax.jit(lambda x: model.apply(variables, x))(self.images)
    expected = jax.image.resize(
        parity.nhwc(self.golden["logits"]), (2, 64, 48, 5), "bilinear"
    )
    self.assert_relatively_near(out["logits"], expected, rtol=1e-4)

  @pytest.mark.slow
  def test_one_step_on_four_losses(self):
    # The network holds its weights once: their gradients are the sum over the
    # three passes of what PyTorch finds.
    model = build(scales=SCALES, upsample_in_training=False)
    params = test_vgg.load(self.network, model)["params"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), (step_lib.AXIS,))
    tx, _ = experiment.build_optimizer(
        dict(learning_rate=1.0, momentum=0.0, schedule=dict(name="constant"))
    ).make(1)
    state = step_lib.TrainState(
        jnp.zeros((), jnp.int32), params, {}, tx.init(params)
    )
    step = step_lib.make_train_step(
        model,
        tx,
        mesh,
        experiment.build_terms({name: TERM for name in OUTPUTS}),
        mean=(127,) * 3,
        std=(60,) * 3,
    )
    batch = dict(
        image=parity.nhwc(self.golden["images"]), label=self.golden["labels"]
    )

    after, scalars = step(
        jax.device_put(state, NamedSharding(mesh, P())),
        jax.device_put(batch, NamedSharding(mesh, P(step_lib.AXIS))),
        jax.random.key(0),
    )

    expected = self.golden.under("loss")
    for name in OUTPUTS:
      np.testing.assert_allclose(
          scalars[f"loss/{name}"], expected[name], rtol=1e-4
      )
    np.testing.assert_allclose(
        scalars["loss/total"], sum(expected.values()), rtol=1e-4
    )
    after = jax.device_get(after.params)
    for name, grad in self.golden.under("grad").items():
      row = test_vgg.rows([name])[0]
      ours, new = params, after
      for key in row.ours[1:]:
        ours, new = ours[key], new[key]
      grad = naming.LAYOUTS[row.layout](grad, ours.shape)
      self.assert_relatively_near(ours - new, grad, rtol=1e-3, name=name)

  @parameterized.parameters(
      ((65, 81), (48, 60), (32, 40)), ((321, 321), (240, 240), (160, 160))
  )
  def test_images_shrink_to_sizes_rounded_down(self, size, *smaller):
    sizes = []

    class Images(nn.Module):

      def __call__(self, images, *, train):
        del train
        sizes.append(images.shape[1:3])
        return {"stage4": images}

    class Features(nn.Module):

      def __call__(self, features, *, train):
        del train
        return {"logits": features["stage4"]}

    model = network.SegmentationModel(Images(), Features(), scales=SCALES)
    jax.eval_shape(lambda x: model.apply({}, x), jnp.zeros((1, *size, 3)))
    self.assertSequenceEqual(sizes, [size, *smaller])

  def test_an_auxiliary_head_is_supervised_at_every_scale(self):
    model = build(
        scales=(0.5, 1), aux_head=dict(name="fcn", stage="stage3", channels=4)
    )
    out, _ = networks.abstract(model)
    expected = ["logits", "scale50_logits", "scale50_aux_logits"]
    expected += ["scale100_logits", "scale100_aux_logits"]
    self.assertSameElements(out, expected)

  @parameterized.parameters(
      dict(scales=(0.75, 0.5)),
      dict(scales=(1.0, 0.751, 0.749)),
      dict(scales=(1.0, -0.5)),
      dict(scales=(1.0, "0.5")),
      dict(scales=1.0),
  )
  def test_scales_that_cannot_be_fused_are_refused(self, scales):
    with self.assertRaisesRegex(errors.UserError, "model.scales: expected"):
      build(scales=scales)

  def test_the_fields_of_the_model_are_checked(self):
    with self.assertRaisesRegex(
        errors.UserError, "upsample_in_training: expected"
    ):
      build(upsample_in_training="no")
    with self.assertRaisesRegex(errors.UserError, "did you mean 'model.scales"):
      build(scale=(1.0, 0.5))


class RecipeTest(parameterized.TestCase):

  def test_only_the_last_layers_of_vgg_learn_ten_times_as_fast(self):
    run = experiment.parse(config_lib.get_config("vgg16,smoke"))
    _, variables = networks.abstract(run.model)
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    params = {path: jnp.zeros((1,) * x.ndim) for path, x in flat.items()}
    params = flax.traverse_util.unflatten_dict(params, sep="/")
    tx, _ = run.optimizer.make(1)
    updates, _ = tx.update(
        jax.tree.map(jnp.ones_like, params), tx.init(params), params
    )
    updates = flax.traverse_util.flatten_dict(updates, sep="/")
    self.assertIn("head/fc7_4/kernel", updates)
    for path, x in updates.items():
      factor = 10 if "/classifier" in path else 1
      factor *= 2 if path.endswith("bias") else 1
      self.assertAlmostEqual(x.item(), -0.001 * factor, msg=path)


class ResNetTest(parity.ParityTestCase):

  # Half of the size after the first convolution, rounded up, and one more.
  @parameterized.parameters((321, 41), (240, 31), (160, 21), (513, 65))
  def test_sizes(self, size, expected):
    features, _ = networks.abstract(resnet.ResNet(**MSRA), (size, 32))
    self.assertEqual(features["stage4"].shape[1], expected)

  def test_stages_are_those_of_the_first_release(self):
    module = resnet.ResNet(**MSRA)
    self.compare_stages(parity.Golden(FILE, "resnet"), module)


class HeadsTest(parameterized.TestCase):

  def test_frozen_statistics_stay_at_every_scale(self):
    model = networks.build(
        dict(name="shallow", channels=4),
        dict(name="deeplabv2", rates=(1, 2)),
        scales=(1.0, 0.5),
        norm=dict(frozen=True),
    )
    variables = networks.uniform(model)
    _, updated = jax.jit(
        lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"])
    )(networks.normal(0, 1, 16, 16, 3))
    jax.tree.map(
        np.testing.assert_array_equal,
        updated["batch_stats"],
        variables["batch_stats"],
    )

  def test_concatenated_logits_are_rectified(self):
    head = dict(name="deeplabv2_concat", rates=(1, 2, 3))
    model = networks.build(dict(name="shallow", channels=4), head)
    variables = networks.uniform(model)
    out = jax.jit(model.apply)(variables, networks.normal(0, 2, 16, 16, 3))
    self.assertEqual(float(out["logits"].min()), 0.0)
    # As wide as there are classes: branches, and their projection.
    kernels = jax.tree.map(jnp.shape, variables["params"]["head"])
    for branch in ("conv", "atrous1", "atrous3", "image_pool"):
      self.assertEqual(kernels[branch]["conv"]["kernel"][-1], 5)
    self.assertEqual(kernels["project"]["conv"]["kernel"], (1, 1, 25, 5))
