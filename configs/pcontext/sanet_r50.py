r"""SANet, ResNet-50, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/sanet_r50.py \
      --workdir runs/pcontext_sanet_r50

Variant: `smoke`. The paper gives rates, epochs and batch; the rest of the
recipe is EncNet's, which it builds on. The prediction is the sum of the dense
and of the fourth attended logits, as in the paper's text; `head.prediction` of
`masks` predicts by what the mask loss supervises.
Reference: 51.9 mIoU, 79.3 pixel accuracy, 59 classes (the paper, Table 1, all
losses); 49.0, 78.9 after 20 epochs (Table 3). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "", depth: int = 50) -> config_dict.ConfigDict:
  """Returns the config of a variant; for a ResNet of another depth, too."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 24_990  # 80 epochs.
  config.data = common.pcontext59((480, 480), long_side=520)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=dict(
          name="resnet",
          depth=depth,
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
      learning_rate=0.001,
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
  config.eval_every = 2_499
  common.apply_variant(config, variant, {"smoke": common.photographs_smoke})
  return config
