r"""EncNet, ResNet-50, CamVid: sized for one GPU or a few.

  python -m ctxseg_jax.data.prepare --dataset camvid --source CamVid \
      --data_dir data
  python train.py --config configs/camvid/encnet_r50_d8.py \
      --workdir runs/camvid_encnet_r50

Variant: `smoke`. Head and losses as PyTorch-Encoding's EncNet-ResNet50s (SE
0.2, auxiliary 0.2, head and auxiliary at ten times the learning rate); crop,
batch and length are ours, as no EncNet on CamVid is published.
Reference: none published. Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.batch_size = 16  # Over all devices.
  config.total_steps = 8000
  config.data = common.camvid(crop_size=(360, 360), scale_range=(0.5, 2.0))
  config.data.num_workers = 8
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(name="resnet", depth=50, output_stride=8, stem="deep64"),
      head=dict(name="encnet", channels=512, num_codewords=32, se_loss=True),
      aux_head=dict(name="fcn", stage="stage3", channels=256),
  )
  config.init_from = common.random_weights()
  config.loss = dict(
      logits=common.cross_entropy(),
      aux_logits=common.cross_entropy(0.2),
      se_logits=common.se_loss(),
  )
  config.optim = dict(
      learning_rate=0.01,
      momentum=0.9,
      weight_decay=1e-4,
      weight_decay_mask="all",
      lr_multipliers=dict(head=10.0, aux_head=10.0),
      schedule=dict(name="poly", power=0.9, end_value=0.0, warmup_steps=500),
  )
  config.eval = dict(protocol="mmseg", batch_size_per_device=4, num_pictures=6)
  config.log_every = 20
  config.checkpoint_every = 500
  config.eval_every = 1000
  common.apply_variant(config, variant, {"smoke": _smoke})
  return config


def _smoke(config):
  common.smoke(config)
  config.data.crop_size = (64, 64)
  config.data.num_workers = 0
  config.model.dtype = "float32"
  config.eval.scales = (0.25,)
