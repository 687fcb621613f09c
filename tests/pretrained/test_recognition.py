"""What the config and the classes in a file tell, and what is never run."""

import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained import mmseg_config
from ctxseg_jax.pretrained import recognition
from ctxseg_jax.pretrained.formats import weight_files

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

# As the published configs are written into checkpoints, in part.
CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], bgr_to_rgb=False),
    backbone=dict(
        type='ResNetV1c',
        dilations=(1, 1, 1, 2),
        strides=(1, 2, 2, 1),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        contract_dilation=True),
    decode_head=dict(
        type='ASPPHead', dilations=(1, 6, 12, 18), align_corners=True),
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
crop_size = (769, 769)
log_level = 'INFO'
"""
TOLD = {
    "align_corners": True,
    "head.rates": (6, 12, 18),
    "backbone.output_stride": 16,
    "backbone.dilation": "contracted",
    "crop_size": (769, 769),
    "channel_order": "bgr",
    "eval": dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
}


def tensors(num_classes=4):
  """Returns tensors of a ResNet-18 with DeepLabV3, of which few names count."""
  shapes = {
      f"backbone.layer{i}.{block}.conv{conv}.weight": (32 * 2**i,)
      for i in range(1, 5)
      for block in range(2)
      for conv in (1, 2)
  } | {
      "backbone.conv1.weight": (64, 3, 7, 7),
      "decode_head.aspp_modules.0.conv.weight": (8, 512, 1, 1),
      "decode_head.bottleneck.conv.weight": (8, 40, 3, 3),
      "decode_head.conv_seg.weight": (num_classes, 8, 1, 1),
  }
  return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def recognise(metadata, num_classes=4):
  weights = loading.InitFrom("mmseg", "f.pth")
  return recognition.recognise(weights, (tensors(num_classes), metadata))


class ConfigTest(parameterized.TestCase):

  def test_a_config_of_mmsegmentation_is_read(self):
    self.assertEqual(mmseg_config.settings(CONFIG), TOLD)
    self.assertEqual(mmseg_config.settings(""), {})

  def test_what_it_tells_comes_before_what_is_usual(self):
    found = recognise({"mmseg_config": CONFIG})
    run = experiment.parse(found.config)
    self.assertEqual(run.model.head.rates, (6, 12, 18))
    self.assertEqual(run.model.head.channels, 8)
    self.assertEqual(run.model.backbone.output_stride, 16)
    self.assertTrue(run.model.align_corners)
    self.assertEqual(run.augmentation.crop_size, (769, 769))
    self.assertEqual(run.settings.stride, (513, 513))
    self.assertEqual(found.weights.channel_order, "bgr")
    self.assertStartsWith(found.lines[0], "by the config in the file: backbone")
    usual = experiment.parse(recognise({}).config)
    self.assertEqual(usual.model.head.rates, (12, 24, 36))
    self.assertFalse(usual.model.align_corners)

  @parameterized.parameters(
      "raise SystemExit",
      "model = dict(backbone=dict(strides=__import__('os').abort()))",
      "model = dict(decode_head=dict(dilations='1', pool_scales=[1, 'x']))",
      "model = dict(backbone=3, test_cfg=[dict(mode='slide')])\nmodel.x = 1",
      "model = [*range(9)]\nimg_norm_cfg = {**1, 'to_rgb': True}",
  )
  def test_nothing_of_it_is_run(self, text):
    self.assertContainsSubset(
        mmseg_config.settings(text), ["backbone.output_stride"]
    )

  @parameterized.parameters("model = dict(", "(" * 10**5, "-" * 10**5, "\0")
  def test_a_text_that_is_no_program_is_named(self, text):
    with self.assertRaisesRegex(errors.UserError, "f.pth: the config in it"):
      recognise({"mmseg_config": text})

  def test_dilations_that_are_none_of_ours_are_refused(self):
    text = "model = dict(backbone=dict(dilations=(1, 1, 2, 4), multi_grid={}))"
    found = mmseg_config.settings(text.format("(4, 8, 16)"))
    self.assertEqual(found["backbone.dilation"], "multi_grid")
    with self.assertRaisesRegex(ValueError, "multi_grid"):
      mmseg_config.settings(text.format("(1, 2, 4)"))

  def test_files_of_mmengine_bring_config_and_classes(self):
    _, metadata = weight_files.read(GOLDEN / "torch_files" / "mmengine.pth")
    self.assertEqual(
        metadata,
        {
            "mmseg_config": "model = dict(type='EncoderDecoder')\n",
            "class_names": '["road", "sky"]',
        },
    )


class ClassesTest(parameterized.TestCase):

  @parameterized.parameters(
      (19, None, "cityscapes"),
      (21, None, "voc2012"),
      (11, '["Sky", "Building", "Pole", "Road", "Pavement", "Tree",'
      ' "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"]', "camvid"),
      (2, '["land", "water"]', ("land", "water")),
      (3, None, ("class 0", "class 1", "class 2")),
      # Of another order.
      (19, str([f"c{i}" for i in range(19)]).replace("'", '"'),
       tuple(f"c{i}" for i in range(19))),
  )  # fmt: skip
  def test_the_data_set_is_found_or_made(self, number, names, expected):
    metadata = {"class_names": names} if names else {}
    run = experiment.parse(recognise(metadata, number).config)
    spec = run.spec
    self.assertEqual(run.data.root, "")
    self.assertEqual(spec.num_classes, number)
    if isinstance(expected, str):
      self.assertEqual(spec.name, expected)
    else:
      self.assertEqual(spec.class_names, expected)

  def test_another_source_is_told(self):
    weights = loading.InitFrom("huggingface", "f.pth")
    with self.assertRaisesRegex(errors.UserError, "those of mmseg or torchv"):
      recognition.recognise(weights, (tensors(), {}))


if __name__ == "__main__":
  absltest.main()
