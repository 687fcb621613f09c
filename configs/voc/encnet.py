r"""EncNet, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/encnet.py --workdir runs/voc_encnet

Variant: `smoke`. Recipe of the authors' code (PyTorch-Encoding), in which the
long side of every image is 0.5 to 2 times 520; features of stages 2 and 3 join
the head's. Theirs multiplies the class scores of views after exp, ours averages
probabilities. Padding is ignored; there it is background.
Reference: 82.9 mIoU on the test server without COCO, 85.9 with it, after 50
more epochs on VOC alone at a rate of 0.0001 (the paper, VOC 2012 results). From
ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.experiment(
      batch_size=16,
      total_steps=52_910,  # 80 epochs.
      eval_every=5_291,
  )
  config.data = common.voc2012((480, 480), long_side=520)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(101, stem="deep64", dilation="contracted"),
      head=dict(
          name="encnet",
          channels=512,
          num_codewords=32,
          lateral=True,
          channel_dropout=False,
      ),
      aux_head=common.fcn_aux(256, channel_dropout=False),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits"),
      se=common.presence("se_logits"),
      aux=common.cross_entropy("aux_logits", 0.2),
  )
  config.optim = common.sgd(
      0.001, weight_decay=1e-4, lr_multipliers=dict(head=10.0, aux_head=10.0)
  )
  config.eval = common.evaluation(config.data, "slide")
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
