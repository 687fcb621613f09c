r"""DeepLabV2, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/deeplabv2.py --workdir runs/voc_deeplabv2

Variants: `vgg16` (ASPP-L on VGG16), `smoke`. Recipe of
kazuto1011/deeplab-pytorch, with the rate changed at every step instead of every
tenth, and batches of 10 instead of two of 5: three scales in training, fused by
their maximum, each supervised at its own size. Its batch norms are frozen,
scales and offsets too. `vgg16` has rate, crop and schedule of the paper: the
last layer of each branch has ten times the rate, and biases twice as much, as
in the prototxt. No dense CRF.
Reference: 76.35 mIoU on val, 77.69 with a dense CRF, from COCO weights (the
paper, as in kazuto1011/deeplab-pytorch).
Reference of `vgg16`: 71.6 mIoU on the test server with a dense CRF, without
COCO (as quoted by the SANet paper, Table 4). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.run(batch_size=10, total_steps=20_000, eval_every=5_000)
  config.data = common.voc2012((321, 321), scale_range=(0.5, 1.5))
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      scales=(1.0, 0.75, 0.5),
      upsample_in_training=False,
      norm=dict(frozen=True),
      backbone=dict(
          name="resnet",
          depth=101,
          output_stride=8,
          stem="7x7",
          dilation="uniform",
          stride_in_1x1=True,
          ceil_pool=True,
      ),
      head=dict(name="deeplabv2"),
  )
  config.loss = dict(
      fused=common.cross_entropy("logits"),
      scale100=common.cross_entropy("scale100_logits"),
      scale75=common.cross_entropy("scale75_logits"),
      scale50=common.cross_entropy("scale50_logits"),
  )
  config.optim = common.sgd(
      2.5e-4,
      weight_decay=5e-4,
      weight_decay_mask="kernels",
      lr_multipliers={"head": 10.0, "head/*/bias": 2.0, "backbone/*/bn/*": 0.0},
  )
  config.eval = common.evaluation(config.data)
  return common.apply_variants(config, variants, VARIANTS)


def _vgg16(config):
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(name="vgg16", form="deeplab"),
      head=dict(name="deeplabv2", channels=1024),
  )
  config.loss = dict(ce=common.cross_entropy("logits"))
  config.optim.learning_rate = 0.001
  config.optim.lr_multipliers = {"head/classifier*": 10.0, "*/bias": 2.0}


VARIANTS = {"vgg16": _vgg16, "smoke": common.photographs_smoke}
