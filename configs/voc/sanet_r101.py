r"""SANet, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/sanet_r101.py \
      --workdir runs/voc_sanet_r101

Variant: `smoke`. The paper gives rates, epochs and batch; the rest of the
recipe is EncNet's, which it builds on. The prediction is the sum of the dense
and of the fourth attended logits, as in the paper's text; `head.prediction` of
`masks` predicts by what the mask loss supervises.
Reference: 83.2 mIoU on the test server without COCO, 204.7 G
multiply-accumulates, 55.5 M parameters (the paper, Tables 4 and 6); the two
last follow from no reading of its text. From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 52_910  # 80 epochs.
  config.data = common.voc2012((480, 480), long_side=520)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=dict(
          name="resnet",
          depth=101,
          output_stride=8,
          stem="deep64",
          dilation="contracted",
      ),
      head=dict(name="sanet", align_corners=True),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      mask_logits=common.cross_entropy(),
      category_logits=dict(loss="presence_bce", weight=0.2),
      dense_logits=common.cross_entropy(0.8),
  )
  config.optim = dict(
      learning_rate=0.0001,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="all",
      lr_multipliers=dict(head=10.0),
      schedule=dict(name="poly", power=0.9, end_value=0.0),
  )
  config.eval = dict(
      protocol="mmseg",
      mode="slide",
      crop_size=(480, 480),
      long_side=520,
      num_pictures=6,
  )
  config.log_every = 50
  config.checkpoint_every = 1_000
  config.eval_every = 5_291
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
