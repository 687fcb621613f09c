r"""SANet, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/sanet.py --workdir runs/voc_sanet

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


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 80 epochs.
  config = common.run(batch_size=16, total_steps=52_910, eval_every=5_291)
  config.data = common.voc2012((480, 480), long_side=520)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(101, stem="deep64", dilation="contracted"),
      head=dict(name="sanet"),
  )
  config.loss = dict(
      mask=common.cross_entropy("mask_logits"),
      category=common.presence("category_logits"),
      dense=common.cross_entropy("dense_logits", 0.8),
  )
  config.optim = common.sgd(
      0.0001, weight_decay=1e-4, lr_multipliers=dict(head=10.0)
  )
  config.eval = common.evaluation(config.data, "slide")
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"smoke": common.photographs_smoke}
