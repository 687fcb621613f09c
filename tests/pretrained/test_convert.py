"""Pretrained weights: names, shapes, values, refusals and the commands.

`golden/make_pretrained.py` computed what is expected of other projects.
"""

import functools
import json
import pathlib
import re
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import flax
import jax
import jax.numpy as jnp
import miniatures
import ml_dtypes
import mmseg_names
import numpy as np
import pytest
import test_mmseg_parity as parity
import tiny

from configs import custom
from configs import quickstart
from configs.camvid import encnet
from configs.voc import deeplabv2
from configs.voc import fcn
from configs.voc import sca
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.models import network
from ctxseg_jax.models.backbones import resnet
from ctxseg_jax.pretrained import convert
from ctxseg_jax.pretrained import export
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained import recognition
from ctxseg_jax.pretrained import transfer
from ctxseg_jax.pretrained.formats import safetensors_file
from ctxseg_jax.pretrained.formats import weight_files
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources import SOURCES
from ctxseg_jax.training import checkpoint
from ctxseg_jax.training import run as run_lib
from ctxseg_jax.training import step as step_lib
from ctxseg_jax.training import weights
from ctxseg_jax.training import workdir as workdir_lib

NAMES = np.load(parity.GOLDEN / "pretrained_names.npz")
FEATURES = "pretrained_features.npz"

FCN = dict(name="fcn", channels=512, num_convs=2, concat_input=True)
AUX = dict(name="fcn", stage="stage3", channels=256)
ASPP = dict(channels=512, project_kernel_size=3)
MMSEG_HEADS = {
    "danet": dict(name="danet", channels=512, query_channels=64),
    "deeplabv3": dict(name="deeplabv3", **ASPP),
    "deeplabv3plus": dict(name="deeplabv3plus", separable=True, **ASPP),
    "emanet": dict(name="emanet", channels=512, concat_input=True),
    "encnet": dict(name="encnet", channels=512),
    "fcn": FCN,
    "nonlocal": dict(name="nonlocal", channels=512),
    "pspnet": dict(name="pspnet", channels=512, branch_channels=512),
}
TORCHVISION_HEADS = {
    "deeplabv3": dict(name="deeplabv3", channels=256, refine=True),
    "fcn": dict(name="fcn"),
}

# Of the whole networks of torchvision with 21 classes, from its documentation.
PUBLISHED = {
    "torchvision/deeplabv3_resnet50": 42_004_074,
    "torchvision/deeplabv3_resnet101": 60_996_202,
    "torchvision/fcn_resnet50": 35_322_218,
    "torchvision/fcn_resnet101": 54_314_346,
}

# Every kind of name once; the others differ in depth.
FAST = (
    "huggingface/model50",
    "huggingface/resnet18",
    "mmseg/v1b50",
    "mmseg/v1c50",
    "mmseg/v1d50",
    "timm/efficientnet_b0",
    "timm/resnet18",
    "timm/resnet18d",
    "timm/resnet50",
    "timm/resnet50c",
    "timm/resnet50d",
    "timm/resnet50s",
    "torchvision/deeplabv3_resnet50",
    "torchvision/efficientnet_b0",
    "torchvision/fcn_resnet50",
    "torchvision/resnet18",
    "torchvision/resnet50",
    "torchvision/vgg16",
    *(f"mmseg/{head}_v1c50" for head in MMSEG_HEADS),
)


def section(name):
  """Returns the `model` section of a config for a published network."""
  source, _, network = name.partition("/")
  if network == "vgg16":
    return dict(
        backbone=dict(name="vgg16", form="dilated"), head=dict(name="fcn_vgg")
    )
  if match := re.fullmatch(r"efficientnet_(b\d)", network):
    return dict(backbone=dict(name="efficientnet", variant=match[1]))
  # A head or none, then the kind of ResNet before or behind its depth.
  head, before, depth, behind = re.fullmatch(
      r"(?:(\w+)_)?(?:resnet|model|v1([bcd]))(\d+)([cds]?)", network
  ).groups()
  kind = before or behind
  stems = {"": "7x7", "b": "7x7", "c": "deep32", "d": "deep32", "s": "deep64"}
  backbone = dict(
      name="resnet", depth=int(depth), stem=stems[kind], avg_down=kind == "d"
  )
  if head is None:
    return dict(backbone=backbone)
  heads = MMSEG_HEADS if source == "mmseg" else TORCHVISION_HEADS
  return dict(backbone=backbone, head=heads[head], aux_head=AUX)


def state_shapes(name):
  return {k: tuple(v) for k, v in json.loads(str(NAMES[name])).items()}


@functools.cache
def _network(model, num_classes):
  """Returns the network of a `model` section as JSON, and shapes by path."""
  model = dict(head=dict(name="fcn", channels=4)) | json.loads(model)
  model = experiment.build_model(model, num_classes)
  variables = jax.eval_shape(
      lambda: model.init(
          jax.random.key(0), jnp.zeros((1, 65, 65, 3)), train=False
      )
  )
  variables.pop("diagnostics", None)
  return model, flax.traverse_util.flatten_dict(variables, sep="/")


def build(model, num_classes=21):
  """Returns the network of a `model` section, and our shapes by path."""
  return _network(json.dumps(model, sort_keys=True), num_classes)


assert_equal = functools.partial(jax.tree.map, np.testing.assert_array_equal)


def zeros(name):
  """Returns the tensors of a published network, without their memory."""
  return {
      k: np.broadcast_to(np.float32(0), shape)
      for k, shape in state_shapes(name).items()
  }


def recognise(source, tensors, metadata=None, path="f.pth"):
  contents = tensors, metadata or {}
  return recognition.recognise(loading.InitFrom(source, path), contents)


def make_plan(name):
  """Returns the plan for a published network, its shapes, and ours by path.

  The section of a whole one is what its names and shapes tell.
  """
  shapes, model = zeros(name), section(name)
  if "aux_head" in model:
    model = recognise(name.partition("/")[0], shapes).config["model"]
  model, ours = build(model)
  source, whole = SOURCES[name.partition("/")[0]], model.aux_head is not None
  heads = "all" if whole else "none"
  plan = transfer.make_plan(source, model, ours, shapes, heads=heads)
  return plan, shapes, ours


class NamesTest(parameterized.TestCase):

  def check(self, name):
    plan, shapes, ours = make_plan(name)
    whole = "aux_head" in section(name)
    self.assertEmpty(plan.absent)
    self.assertEmpty(plan.unknown)
    for path, (theirs, layout) in plan.names.items():
      shape = tuple(ours[path].shape)
      x = naming.LAYOUTS[layout](shapes[theirs], shape)
      self.assertEqual(x.shape, shape, path)
    filled = [path for path in ours if path not in plan.names]
    expected = {
        True: r"(?!)",
        # What VGG16 lacks, and the classifier of another task.
        False: r"params/(backbone/conv_dilated|head/classifier)/.*|.*/head/.*",
    }[whole]
    self.assertEmpty([p for p in filled if not re.fullmatch(expected, p)])
    used = {theirs for theirs, _ in plan.names.values()}
    self.assertLen(used, len(plan.names))
    self.assertEqual(used | set(plan.skipped), set(shapes))
    # Only counters and the classifiers of backbones are skipped.
    rest = [k for k in plan.skipped if not k.endswith("batches_tracked")]
    if whole or name.startswith("mmseg/") or "model" in name:
      self.assertEmpty(rest)
    for k in rest:
      self.assertRegex(
          k, r"^(fc|classifier(\.[16])?|features\.8|conv_head|bn2)\b"
      )

  @parameterized.parameters(*FAST)
  def test_all_tensors_have_a_place(self, name):
    self.check(name)

  @parameterized.parameters(*sorted(set(NAMES.files) - set(FAST)))
  @pytest.mark.slow
  def test_all_tensors_of_the_other_networks_have_a_place(self, name):
    self.check(name)

  @parameterized.parameters(
      *(x for x in NAMES.files if re.search("resnet|v1", x) and x[0] != "h")
  )
  def test_names_and_shapes_tell_the_network(self, name):
    found = recognise(name.partition("/")[0], zeros(name)).config["model"]
    for part, expected in section(name).items():
      told = {k: found[part].get(k) for k in expected}
      self.assertEqual(told, expected)

  @parameterized.parameters(*PUBLISHED)
  def test_whole_networks_have_the_published_number_of_parameters(self, name):
    if name not in FAST:
      shapes = state_shapes(name)
      sizes = [np.prod(s) for k, s in shapes.items() if "running" not in k]
      trained = sum(sizes) - sum(k.endswith("tracked") for k in shapes)
    else:
      _, ours = build(section(name))
      trained = sum(x.size for k, x in ours.items() if k.startswith("params"))
    self.assertEqual(trained, PUBLISHED[name])

  @parameterized.parameters("efficientnet_b0", "resnet18")
  def test_torchvision_and_timm_register_modules_in_the_same_order(self, name):
    # So tensors in the same place of both lists must go to the same path.
    paths = []
    for source in ("torchvision", "timm"):
      plan, shapes, _ = make_plan(f"{source}/{name}")
      ours = {theirs: path for path, (theirs, _) in plan.names.items()}
      paths.append([ours[k] for k in shapes if k in ours])
    self.assertEqual(*paths)


class LayoutTest(absltest.TestCase):

  def test_a_dense_layer_on_a_flattened_map_becomes_a_convolution(self):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 4 * 3 * 2))  # Of maps [4, 3, 2].
    x = rng.normal(size=(4, 3, 2))
    kernel = naming.LAYOUTS["linear"](weight, (3, 2, 4, 6))
    np.testing.assert_allclose(
        np.einsum("chw,hwco->o", x, kernel), weight @ x.ravel()
    )

  def test_the_branch_of_the_mean_moves_to_the_front(self):
    weight = np.arange(2 * 10.0).reshape(2, 10, 1, 1)  # Five branches of two.
    kernel = naming.LAYOUTS["mean_last"](weight, (1, 1, 10, 2))
    np.testing.assert_array_equal(
        kernel[0, 0, :, 0], [8, 9, 0, 1, 2, 3, 4, 5, 6, 7]
    )

  def test_grouped_and_dense_kernels(self):
    depthwise = np.arange(6 * 9.0).reshape(6, 1, 3, 3)
    kernel = naming.LAYOUTS["linear"](depthwise, (3, 3, 1, 6))
    np.testing.assert_array_equal(kernel[:, :, 0, 4], depthwise[4, 0])
    square = np.arange(4.0).reshape(2, 2)
    for weight in (square, square[:, :, None], square[:, :, None, None]):
      np.testing.assert_array_equal(
          naming.LAYOUTS["linear"](weight, (2, 2)), square.T
      )


class FeaturesTest(parity.ParityTestCase):
  """The numbers of other projects' ResNet-18, at an odd size."""

  @parameterized.parameters(
      ("timm", dict(stem="deep32", avg_down=True, output_stride=32)),
      ("huggingface", dict(stem="7x7", output_stride=32)),
      ("mmseg", dict(stem="deep32", avg_down=True)),
  )
  def test_stages(self, source, fields):
    golden = parity.Golden(FEATURES, source)
    module = resnet.ResNet(depth=18, **fields)
    images = parity.nhwc(mmseg_names.make_tensor("images", (1, 3, 75, 59)))
    variables = parity.template(module, images)
    ours = {
        "/".join((c, "backbone", *path)): x
        for (c, *path), x in flax.traverse_util.flatten_dict(variables).items()
    }
    arrays, _ = transfer.transfer(
        parity.tensors(golden),
        source,
        network.SegmentationModel(backbone=module, head=None),
        ours,
        heads="none",
        place="file",
    )
    variables = flax.traverse_util.unflatten_dict(
        {k.replace("/backbone", ""): x for k, x in arrays.items()}, sep="/"
    )

    features = jax.jit(module.apply, static_argnames="train")(
        variables, images, train=False
    )

    for stage in ("stage1", "stage2", "stage3", "stage4"):
      maps, means = golden[f"{stage}/maps"], golden[f"{stage}/means"]
      x = np.moveaxis(np.asarray(features[stage][0]), -1, 0)
      self.assert_relatively_near(
          x[:: x.shape[0] // 4], maps, rtol=1e-4, name=stage
      )
      self.assert_relatively_near(x.mean((1, 2)), means, rtol=1e-4, name=stage)


class FolderCase(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.output = self.folder / "converted"

  def write(self, tensors):
    path = self.folder / "weights.safetensors"
    safetensors_file.write(path, tensors, {})
    return path

  def assert_refused(self, function, *texts):
    with self.assertRaises(errors.UserError) as raised:
      function()
    for text in texts:
      self.assertIn(text, str(raised.exception))
    self.assertNotIn("\n", str(raised.exception))


def torchvision_config():
  config = encnet.get_config("fcn")
  config.model = dict(
      backbone=dict(name="resnet", depth=18, output_stride=32, stem="7x7"),
      head=dict(name="deeplabv3", channels=256, refine=True),
      aux_head=dict(name="fcn", stage="stage3"),
  )
  return config.to_dict()


@functools.cache
def torchvision_tensors():
  return parity.tensors(parity.Golden(FEATURES, "torchvision"))


_FOLDER = tempfile.TemporaryDirectory()  # Removed at the end.


@functools.cache
def torchvision_file():
  path = pathlib.Path(_FOLDER.name) / "weights.safetensors"
  safetensors_file.write(path, torchvision_tensors(), {})
  return path


class ConvertTest(FolderCase):

  def convert(self, config=None, tensors=None, **kwargs):
    path = self.write(tensors) if tensors else torchvision_file()
    weights = loading.InitFrom("torchvision", str(path), **kwargs)
    return convert.convert(config or torchvision_config(), weights, self.output)

  def test_a_converted_network_has_the_logits_of_the_original(self):
    config = torchvision_config()
    config["data"]["std"] = (60.0, 60.0, 60.0)
    counters = {"backbone.bn1.num_batches_tracked": np.array(7)}

    told = self.convert(config, torchvision_tensors() | counters)

    self.assertRegex(told, r"copied\s+\d+ tensors: backbone \d+, head \d+, aux")
    self.assertIn("skipped      1 tensor: counters of batch norms", told)
    self.assertRegex(told, r"missing\s+0 tensors")
    self.assertIn("data.std is (58.395, 57.12, 57.375)", told)
    self.assertNotIn("data.mean is", told)
    trained = experiment.load(self.output)
    self.assertEqual(trained.step, 0)
    self.assertEqual(trained.run.data.std, (58.395, 57.12, 57.375))
    images = parity.nhwc(mmseg_names.make_tensor("images", (1, 3, 75, 59)))
    out = jax.jit(lambda v, x: trained.model.apply(v, x, train=False))(
        trained.variables, images
    )
    expected = parity.nhwc(parity.Golden(FEATURES, "torchvision")["logits"])
    np.testing.assert_allclose(
        out["logits"][:, ::3], expected, rtol=0, atol=1e-4
    )
    self.assertGreater(np.std(expected), 0.1)
    # The same weights are where training would go on from.
    last = experiment.load(self.output, "last")
    assert_equal(last.variables, trained.variables)
    self.assertSameElements(
        [p.name for p in self.folder.iterdir()],
        ["converted", "weights.safetensors"],
    )

  def test_without_a_config_the_network_is_told_by_its_tensors(self):
    weights = loading.InitFrom("torchvision", str(torchvision_file()))
    told = convert.convert(None, weights, self.output)
    self.assertRegex(told, r"missing\s+0 tensors")
    self.assertIn("as torchvision publishes: backbone.output_stride=8", told)
    self.assertIn("11 classes: those of camvid, by their number", told)
    config = experiment.load(self.output).config
    expected = torchvision_config()["model"]
    expected["backbone"]["output_stride"] = 8  # No tensor tells that it was 32.
    for part, fields in expected.items():
      found = {k: config["model"][part][k] for k in fields}
      self.assertEqual(found, fields)

  def test_urls_are_no_paths(self):
    for path in ("gs://bucket/x", "s3://bucket/x"):
      self.assert_refused(
          lambda p=path: weight_files.read(p), path, "not supported"
      )
      self.output = path
      self.assert_refused(self.convert, f"--output: {path}", "not supported")

  def test_an_existing_folder_is_left_alone(self):
    self.output.mkdir()
    self.assert_refused(self.convert, "converted: exists", "--output")
    self.assertEmpty(list(self.output.iterdir()))

  def test_a_backbone_alone_becomes_a_file_to_start_from(self):
    tensors = {
        k.removeprefix("backbone."): x
        for k, x in torchvision_tensors().items()
        if k.startswith("backbone.")
    } | {"fc.weight": np.zeros((1000, 512), np.float32)}

    told = self.convert(tensors=tensors, channel_order="bgr")

    self.assertIn("skipped      1 tensor: the classifier", told)
    self.assertIn("from BGR to RGB", told)
    self.assertIn("init_from", told)
    self.assertEqual(
        [p.name for p in self.output.iterdir()], [convert.BACKBONE_FILE]
    )
    copy = weight_files.read(self.output / convert.BACKBONE_FILE)[0]
    self.assertTrue(all("/backbone/" in path for path in copy))
    np.testing.assert_array_equal(
        copy["params/backbone/stem_conv1/conv/kernel"][:, :, ::-1],
        tensors["conv1.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        copy["params/backbone/stage1_block2/conv1/conv/kernel"],
        tensors["layer1.1.conv1.weight"].transpose(2, 3, 1, 0),
    )

  def test_bgr_goes_with_the_normalisation_of_caffe(self):
    weights = loading.InitFrom("mmseg", "x", "bgr")
    mean, std = loading.normalisation(weights, {})
    self.assertEqual(mean, naming.IMAGENET_MEAN)
    self.assertEqual(std, (1.0, 1.0, 1.0))

  def test_an_error_while_writing_leaves_nothing(self):
    with mock.patch.object(
        convert.workdir_lib.Workdir,
        "write_config",
        side_effect=OSError(28, "No space left"),
    ):
      self.assert_refused(self.convert, "converted: cannot be written", "space")
    self.assertEmpty(list(self.folder.iterdir()))

  def test_of_a_network_with_another_head_the_backbone_is_taken(self):
    config = torchvision_config()
    config["model"]["head"] = dict(name="double_attention")
    told = self.convert(config)
    self.assertIn("44 tensors: what follows the backbone", told)
    self.assertIn("no head like the config's", told)
    self.assertEqual(
        [p.name for p in self.output.iterdir()], [convert.BACKBONE_FILE]
    )


class TransferTest(FolderCase):

  def transfer(self, tensors, source="torchvision", model=None, **kwargs):
    model = model or torchvision_config()["model"]
    return transfer.transfer(
        tensors,
        source,
        *build(model, kwargs.pop("num_classes", 11)),
        heads=kwargs.pop("heads", "all"),
        place="weights.pth",
        **kwargs,
    )

  def test_without_an_auxiliary_head_its_weights_are_skipped(self):
    model = torchvision_config()["model"] | dict(aux_head=None)
    _, skipped = self.transfer(torchvision_tensors(), model=model)
    self.assertLen(skipped, 7)
    reasons = set(skipped.values())
    self.assertEqual(reasons, {"the config has no auxiliary head"})

  @parameterized.parameters(
      (
          {"classifier.1.weight": None},
          ("no tensor 'classifier.1.weight'", "params/head/refine/conv/kernel"),
      ),
      (
          {"classifier.9.weight": np.zeros(3, np.float32)},
          ("'classifier.9.weight' [3] has no place",),
      ),
      (
          {"backbone.layer4.2.conv1.weight": np.zeros((1,) * 4)},
          ("'backbone.layer4.2.conv1.weight'", "no place", "depth"),
      ),
      (
          {"classifier.4.bias": np.zeros(7, np.float32)},
          ("'classifier.4.bias' has shape [7]", "[11]", "number of classes"),
      ),
      (
          {"backbone.bn1.bias": np.zeros(64, np.int32)},
          ("'backbone.bn1.bias' holds int32", "floating point"),
      ),
      (
          {"backbone.conv1.weight": np.zeros((64, 1, 7, 7), np.float32)},
          ("'backbone.conv1.weight' has shape [64, 1, 7, 7]", "[7, 7, 3, 64]"),
      ),
      (
          {"classifier.0.project.0.weight": np.zeros(256, np.float32)},
          ("'classifier.0.project.0.weight' has shape [256]",),
      ),
  )
  def test_refusals_name_file_tensor_and_remedy(self, changes, texts):
    tensors = torchvision_tensors() | changes
    tensors = {k: x for k, x in tensors.items() if x is not None}
    self.assert_refused(lambda: self.transfer(tensors), "weights.pth: ", *texts)

  def test_another_number_of_classes_is_told(self):
    tensors = {
        k: np.resize(x, (21, *x.shape[1:])) if len(x) == 11 else x
        for k, x in torchvision_tensors().items()
    }
    self.assert_refused(
        lambda: self.transfer(tensors),
        "weights.pth: ",
        "the file has 21 classes, the config's data set 11",
        "config.data",
    )

  def test_a_missing_auxiliary_head_is_told(self):
    tensors = torchvision_tensors()
    tensors = {k: x for k, x in tensors.items() if not k.startswith("aux")}
    self.assert_refused(
        lambda: self.transfer(tensors),
        "weights.pth: ",
        "no tensor 'aux_classifier.",
        "None where the file has none",
    )

  @parameterized.parameters(
      ("timm", "mmseg/v1c50", None),
      ("mmseg", "timm/resnet50c", None),
      ("torchvision", "huggingface/resnet50", None),
      ("huggingface", "torchvision/resnet50", None),
      ("mmseg", "torchvision/fcn_resnet50", None),
      # Even if the config is wrong too.
      ("timm", "huggingface/resnet50", "mmseg/v1c50"),
  )
  def test_the_wrong_source_is_told_the_right_one(self, source, name, model):
    model = dict(head=FCN) | section(model or name)
    self.assert_refused(
        lambda: self.transfer(
            zeros(name), source, model, heads="none", num_classes=21
        ),
        "weights.pth: ",
        "its names are those of",
        name.partition("/")[0],
    )

  def test_half_precision_is_widened(self):
    for dtype in (np.float16, np.float64, ml_dtypes.bfloat16):
      tensors = dict(torchvision_tensors())
      tensors["backbone.bn1.bias"] = np.full(64, 1.5, dtype)
      arrays, _ = self.transfer(tensors)
      widened = arrays["params/backbone/stem_conv1/bn/bias"]
      self.assertEqual(widened.dtype, np.float32)
      np.testing.assert_array_equal(widened, 1.5)


class PyTorchEncodingTest(parity.ParityTestCase):

  # What mmsegmentation's names begin with, in the order they are tried.
  RENAMES = {
      "backbone.stem.7.": "pretrained.bn1.",
      "backbone.stem.": "pretrained.conv1.",
      "backbone.": "pretrained.",
      "auxiliary_head.convs.0.": "auxlayer.conv5.",
      "auxiliary_head.conv_seg.": "auxlayer.conv5.4.",
      "decode_head.bottleneck.": "head.conv5.",
      "decode_head.lateral_convs.0.": "head.connect.0.",
      "decode_head.lateral_convs.1.": "head.connect.1.",
      "decode_head.fusion.": "head.fusion.",
      "decode_head.enc_module.encoding_project.": "head.encmodule.encoding.",
      "decode_head.enc_module.encoding.0.": "head.encmodule.encoding.3.",
      "decode_head.enc_module.encoding.1.": "head.encmodule.encoding.4.",
      "decode_head.enc_module.fc.0.": "head.encmodule.fc.0.",
      "decode_head.se_layer.": "head.encmodule.selayer.",
      "decode_head.conv_seg.": "head.conv6.1.",
  }

  def rename(self, name):
    start = next(start for start in self.RENAMES if name.startswith(start))
    rest = re.sub(r"^conv\.", "0.", name.removeprefix(start))
    return self.RENAMES[start] + re.sub(r"^bn\.", "1.", rest)

  def test_encnet_is_that_of_mmsegmentation_under_other_names(self):
    golden = parity.Golden("mmseg_segmentor.npz", "aligned")
    tensors = parity.tensors(golden)
    model = dict(
        backbone=dict(name="resnet", depth=18, stem="deep32"),
        head=dict(name="encnet", channels=16, num_codewords=4, lateral=True),
        aux_head=dict(name="fcn", stage="stage3", channels=8),
    )
    model = experiment.build_model(model, parity.NUM_CLASSES)
    ours = parity.template(model, jnp.zeros((1, 65, 65, 3)))
    ours = parity.without_diagnostics(ours)
    ours = flax.traverse_util.flatten_dict(ours, sep="/")
    results = {}
    renamed = {self.rename(k): x for k, x in tensors.items()}
    renamed["pretrained.fc.bias"] = np.zeros(1000, np.float32)
    self.assertEqual(
        recognise("pytorch_encoding", renamed).config["model"],
        dict(
            backbone=dict(
                name="resnet",
                depth=18,
                stem="deep32",
                avg_down=False,
                output_stride=8,
                dilation="contracted",
            ),
            head=dict(
                name="encnet",
                channels=16,
                num_codewords=4,
                project=True,
                lateral=True,
                se_loss=True,
                channel_dropout=False,
            ),
            aux_head=dict(
                name="fcn", stage="stage3", channels=8, channel_dropout=False
            ),
            align_corners=True,
        ),
    )
    files = {"mmseg": tensors, "pytorch_encoding": renamed}
    for source, found in files.items():
      results[source], skipped = transfer.transfer(
          found, source, model, ours, heads="all", place="file"
      )
      self.assertEqual(set(results[source]), set(ours))
      self.assertLen(skipped, source == "pytorch_encoding")
    assert_equal(results["mmseg"], results["pytorch_encoding"])


class ConventionsTest(parameterized.TestCase):

  def differences(self, source, whole=True, backbone=None, told=None, **fields):
    model = dict(
        backbone=dict(name="resnet") | (backbone or {}),
        head=dict(name="fcn"),
        **fields,
    )
    model = experiment.build_model(model, 5)
    return " ".join(loading.differences(source, model, whole, told or {}))

  def test_what_no_tensor_tells_is_compared(self):
    self.assertEmpty(self.differences("mmseg"))
    self.assertEmpty(self.differences("pytorch_encoding", align_corners=True))
    self.assertIn("align_corners", self.differences("pytorch_encoding"))
    self.assertEmpty(self.differences("pytorch_encoding", whole=False))
    uniform = dict(dilation="uniform")
    self.assertIn(
        "model.backbone.dilation is 'uniform', the weights of mmseg were"
        " trained with 'contracted'",
        self.differences("mmseg", backbone=uniform),
    )
    self.assertEmpty(self.differences("mmseg", False, backbone=uniform))
    # What the file says comes before what is usual.
    told = {"backbone.dilation": "uniform", "head.bins": (1,), "eval": {}}
    self.assertEmpty(self.differences("mmseg", backbone=uniform, told=told))
    self.assertIn("'contracted', the w", self.differences("mmseg", told=told))

  @parameterized.parameters(
      ("torchvision", "b0", 1e-5),
      ("torchvision", "b6", 1e-3),
      ("timm", "b6", 1e-5),
  )
  def test_the_epsilon_of_efficientnets(self, source, variant, epsilon):
    fields = dict(name="efficientnet", variant=variant)
    for value in (1e-3, 1e-5):
      backbone = fields | dict(epsilon=value)
      found = self.differences(source, False, backbone=backbone)
      self.assertEqual("epsilon" in found, value != epsilon)


class InitFromTest(FolderCase):

  def parse(self, **section):
    return experiment.parse(torchvision_config() | dict(init_from=section))

  def test_sections(self):
    self.assertIsNone(experiment.parse(torchvision_config()).init_from)
    self.assertIsNone(self.parse(source="", path="").init_from)
    self.assertEqual(
        self.parse(source="timm", path="f.pth").init_from,
        loading.InitFrom("timm", "f.pth", "rgb"),
    )

  @parameterized.parameters(
      (dict(source="tim", path="f"), "init_from.source.*did you mean 'timm'"),
      (dict(path="f"), "init_from.source.*known"),
      (dict(source="timm"), "init_from.path: missing"),
      (dict(source="timm", file="f"), "unknown key 'init_from.file'"),
      (
          dict(source="timm", path="f", channel_order="gbr"),
          "channel_order: .*'rgb'.*'bgr'",
      ),
  )
  def test_mistakes_are_named(self, section, message):
    with self.assertRaisesRegex(errors.UserError, message):
      self.parse(**section)

  def start(self, num_classes, model=None, **fields):
    """Returns a state's variables before and after, and the log."""
    config = torchvision_config()
    model = experiment.build_model(config["model"] | (model or {}), num_classes)
    tx, _ = experiment.build_optimizer(config["optim"]).make(100)
    state = jax.eval_shape(
        lambda: step_lib.init_state(
            model, tx, jax.random.key(0), (64, 64), average=True
        )
    )
    state = jax.tree.map(lambda x: np.full(x.shape, 0.125, x.dtype), state)
    state = jax.device_put(state)
    with self.assertLogs(level="INFO") as logs:
      started = loading.start(
          loading.InitFrom("torchvision", str(torchvision_file()), **fields),
          model,
          state,
          loading.Normalisation((127.0,) * 3, naming.IMAGENET_STD),
      )
    assert_equal(started.average, started.params)
    text = "\n".join(logs.output)
    return loading.flatten(state), loading.flatten(started), text

  def assert_afresh(self, before, after, pattern):
    """Fails unless just the variables that match are as they were."""
    for name in before:
      same = np.array_equal(before[name], after[name])
      self.assertEqual(same, bool(re.fullmatch(pattern, name)), name)

  def test_all_but_the_classifiers_goes_to_another_number_of_classes(self):
    before, after, text = self.start(5)
    self.assert_afresh(before, after, r".*/classifier/.*")
    self.assertIn("skipped      1 tensor: of another shape: [11, 256, 1,", text)
    self.assertRegex(text, r"missing +4 tensors: head 2, aux_head 2; they")
    self.assertRegex(text, r"they keep .*\(params/aux_head/classifier/conv/")
    self.assertRegex(text, r"data.mean is \(127.0, 127.0, 127.0\), the weights")
    self.assertNotIn("data.std", text)

  def test_of_another_head_nothing_is_taken(self):
    model = dict(head=dict(name="double_attention", channels=16))
    before, after, text = self.start(11, model)
    self.assert_afresh(before, after, r"[^/]*/head/.*")
    self.assertRegex(text, r"skipped +37 tensors: what follows the backbone")

  def test_strict_takes_all_or_nothing(self):
    before, after, _ = self.start(11, strict=True)
    self.assert_afresh(before, after, r"(?!)")
    self.assert_refused(
        lambda: self.start(5, strict=True), "11 classes", "strict=False"
    )

  def test_what_is_to_start_afresh_is_left_out(self):
    before, after, text = self.start(
        11, strict=True, fresh=("head", "*/classifier")
    )
    self.assert_afresh(before, after, r"[^/]*/head/.*|.*/classifier/.*")
    self.assertRegex(text, r"skipped +\d+ tensors: to start afresh, as init_fr")
    self.assert_refused(
        lambda: self.start(11, fresh=("heads",)), "init_from.fresh", "'heads'"
    )

  def test_dense_layers_of_vgg16_start_the_head(self):
    model = dict(
        backbone=dict(name="vgg16", form="dilated", channels=4),
        head=dict(name="fcn_vgg", channels=6),
    )
    model = experiment.build_model(model, 5)
    ours = parity.template(model, jnp.zeros((1, 64, 64, 3)))
    ours = flax.traverse_util.flatten_dict(ours, sep="/")
    tensors = {}
    for path, x in ours.items():
      found = naming.resolve(
          path, SOURCES["torchvision"].backbone_rules(model.backbone, "")
      )
      if found is not None:
        shape = (*x.shape[:1:-1], *x.shape[:2]) if x.ndim > 1 else x.shape
        tensors[found[0]] = np.ones(shape, np.float32)
    dense = tensors["classifier.0.weight"].reshape(6, -1)
    tensors["classifier.0.weight"] = dense
    tensors["classifier.3.weight"] = np.ones((9, 6), np.float32)
    tensors["classifier.3.bias"] = np.ones(9, np.float32)
    arrays, skipped = transfer.transfer(
        tensors, "torchvision", model, ours, heads="none", place="file"
    )
    self.assertEqual(arrays["params/head/fc6/kernel"].shape, (7, 7, 32, 6))
    # Of another width: left out, and listed.
    self.assertIn("classifier.3.weight", skipped)
    self.assertIn("of another shape", skipped["classifier.3.bias"])
    missing = ("backbone/conv_dilated", "head/fc7", "head/classifier/conv")
    self.assertSameElements(
        set(ours) - set(arrays),
        [f"params/{name}/{x}" for name in missing for x in ("kernel", "bias")],
    )
    # SCA's have all of the head start afresh.
    fresh = sca.get_config().init_from.fresh
    arrays, skipped = transfer.transfer(
        *(tensors, "torchvision", model, ours),
        **dict(heads="none", place="file", fresh=fresh),
    )
    self.assertLen(arrays, 26)
    self.assertIn("afresh", skipped["classifier.0.weight"])


def tiny_config(data_dir=""):
  config = quickstart.get_config("fcn")
  config.model.backbone.channels = config.model.head.channels = 4
  config.optim.learning_rate = 1e-30  # Parameters stay as they are.
  config.total_steps = config.checkpoint_every = config.log_every = 1
  config.data.eval_split = "val[:8]"
  config.data.data_dir = data_dir
  config.eval.num_pictures = 1
  return config


def own_weights(path):
  return loading.InitFrom("ctxseg_jax", str(path))


class OwnFilesTest(FolderCase):

  def export(self, config=None):
    """Writes a work dir, without training, and exports it."""
    config = config or tiny_config().to_dict()
    run, path = self.folder / "run", self.folder / "net.safetensors"
    with workdir_lib.Workdir(run) as folder:
      folder.write_config(config)
      checkpoint.save_best(folder.best, 0, self.state(config))
    export.export(run, path)
    return run, path

  def state(self, config=None):
    """Returns a state of random numbers; to initialise one is to compile it."""
    run = experiment.parse(config or tiny_config().to_dict())
    tx, _ = run.optimizer.make(run.total_steps)
    state = jax.eval_shape(lambda: run.init_state(tx, jax.random.key(7)))
    rng = np.random.default_rng(7)
    flat = {
        path: rng.uniform(0.5, 1, x.shape).astype(x.dtype)
        for path, x in loading.flatten(state).items()
    }
    state = loading.with_variables(state, flat)
    opt_state = tx.init(state.params)
    return state.replace(step=np.zeros((), np.int32), opt_state=opt_state)

  def test_an_exported_network_comes_back_by_its_own_config(self):
    run, path = self.export()
    self.assert_refused(lambda: export.export(run, path), "exists")
    self.assertEqual(weight_files.read(path)[1]["step"], "0")

    result = tiny.run(
        "-m",
        "ctxseg_jax.pretrained.convert",
        "--source=ctxseg_jax",
        f"--checkpoint={path}",
        f"--output={self.output}",
    )

    self.assertEqual(result.code, 0, result.stderr)
    self.assertRegex(result.stdout, r"missing +0 tensors")
    converted, trained = experiment.load(self.output), experiment.load(run)
    self.assertEqual(converted.config, trained.config)
    assert_equal(converted.variables, trained.variables)
    # Training finds a whole state at step 0.
    state = self.state()
    folder = self.output / "checkpoints"
    with checkpoint.Checkpoints(folder) as checkpoints:
      restored, step = checkpoints.restore(state)
    self.assertEqual(step, 0)
    assert_equal(restored, state)

  @parameterized.parameters(
      (fcn, "smoke"), (deeplabv2, "vgg16,smoke"), (sca, "smoke")
  )
  def test_a_network_without_batch_norm_comes_back(self, module, variant):
    config = module.get_config(variant).to_dict()
    config["model"]["backbone"]["channels"] = 4
    run, path = self.export(config)
    weights = own_weights(path)
    convert.convert(None, weights, self.output)
    converted, trained = experiment.load(self.output), experiment.load(run)
    self.assertEqual(list(trained.variables), ["params"])
    assert_equal(converted.variables, trained.variables)

  def test_stages_of_fcn_start_from_the_one_before(self):
    tensors = {}
    for variant, pool in (
        ("", ""),
        ("fcn16s", "pool4"),
        ("fcn8s_staged", "pool3"),
    ):
      run = experiment.parse(fcn.get_config(f"{variant},smoke".lstrip(",")))
      ours = parity.template(run.model, jnp.zeros((1, 64, 64, 3)))
      ours = flax.traverse_util.flatten_dict(ours, sep="/")
      if tensors:
        score = f"head/score_{pool}"
        arrays, _ = transfer.transfer(
            tensors,
            "ctxseg_jax",
            run.model,
            ours,
            heads="all",
            fresh=[score],
            place="file",
        )
        self.assertSameElements(
            set(ours) - set(arrays),
            [f"params/{score}/{x}" for x in ("kernel", "bias")],
        )
      tensors = {path: np.zeros(x.shape, "f4") for path, x in ours.items()}

  def test_an_average_starts_at_the_converted_parameters(self):
    run, path = self.export()
    config = tiny_config()
    config.optim.ema_decay = 0.5
    convert.convert(config, own_weights(path), self.output)
    converted, trained = experiment.load(self.output), experiment.load(run)
    assert_equal(converted.variables, trained.variables)

  def test_of_own_data_the_config_is_the_one_that_training_has(self):
    root = self.folder / "photographs"
    miniatures.write_custom(root)
    given = custom.get_config("smoke").to_dict()
    given["data"]["root"] = str(root)
    given["model"] = tiny_config().model.to_dict()
    resolved = experiment.parse(given).config
    flat = loading.flatten(self.state(resolved))
    path = self.write({name: np.asarray(x) for name, x in flat.items()})
    convert.convert(given, own_weights(path), self.output)
    with workdir_lib.Workdir(self.output) as folder:
      folder.check_config(resolved, ignore=run_lib.FREE_KEYS)

  def test_the_normalisation_is_in_the_file(self):
    _, path = self.export()
    data, weights = tiny_config().data, own_weights(path)
    _, metadata = weight_files.read(path)
    self.assertEqual(
        loading.normalisation(weights, metadata),
        (tuple(data.mean), tuple(data.std)),
    )
    for text in ("1", "[1, {}, 2]", "[" * 10**5, "x"):
      metadata = {"mean": "[1, 2, 3]", "std": text}
      self.assert_refused(
          lambda m=metadata: loading.normalisation(weights, m),
          f"{path}: the mean and std in its metadata",
      )

  @parameterized.parameters("[]", "x", "{" * 10**5, "[" * 10**5, "9" * 10**4)
  def test_a_damaged_config_in_a_file_is_named(self, text):
    path = self.folder / "net.safetensors"
    safetensors_file.write(path, {"x": np.zeros(1)}, {"config": text})
    self.assert_refused(
        lambda: convert.convert(None, own_weights(path), self.output),
        f"{path}: the config in its metadata is damaged",
    )

  def test_training_starts_from_a_work_dir_once(self):
    self.enterContext(tiny.on_one_device())
    run, path = self.export()
    config = tiny_config(tiny.data_dir())
    config.init_from.source, config.init_from.path = "ctxseg_jax", str(run)
    workdir = str(self.folder / "trained")

    with self.assertLogs(level="INFO") as logs:
      state = experiment.train_and_evaluate(config, workdir)

    log = "\n".join(logs.output)
    self.assertRegex(log, r"missing +0 tensors")
    self.assertNotIn("data.mean is", log)
    tensors, _ = weight_files.read(path)
    for name, x in loading.flatten(state).items():
      if name.startswith("params/"):
        np.testing.assert_allclose(x, tensors[name], 0, 1e-20, err_msg=name)
    # A resumed run has weights of its own.
    shutil.rmtree(run)
    with self.assertLogs(level="INFO") as logs:
      experiment.train_and_evaluate(config, workdir)
    self.assertNotIn("Weights from", "\n".join(logs.output))
    other = str(self.folder / "other")
    self.assert_refused(
        lambda: experiment.train_and_evaluate(config, other), str(run)
    )

  def test_a_folder_is_no_file_of_another_project(self):
    init_from = loading.InitFrom("timm", str(self.folder))
    self.assert_refused(
        lambda: weights.contents(init_from), "init_from.source='ctxseg_jax'"
    )

  @pytest.mark.slow
  def test_a_converted_folder_can_be_trained_on(self):
    run, path = self.export()
    config = tiny_config(tiny.data_dir())
    convert.convert(config, own_weights(path), self.output)
    state = experiment.train_and_evaluate(config, str(self.output))
    self.assertEqual(int(state.step), 1)
    expected = experiment.load(run).variables["params"]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, 0, 1e-20),
        state.params,
        expected,
    )

  def test_files_without_a_config_need_one(self):
    path = str(self.write({"conv1.weight": np.zeros(1, np.float32)}))
    for source, text in (("timm", "pass --config"), ("ctxseg_jax", "missing")):
      weights = loading.InitFrom(source, path)
      self.assert_refused(
          lambda w=weights: convert.convert(None, w, self.output), text, path
      )


if __name__ == "__main__":
  absltest.main()
