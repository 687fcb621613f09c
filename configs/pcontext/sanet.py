r"""SANet, ResNet-50, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/sanet.py \
      --workdir runs/pcontext_sanet

Variants: `r101`, `effnetb7` (EfficientNet-B7), `smoke`. The paper gives rates,
epochs and batch; the rest of the recipe is EncNet's, which it builds on. The
prediction is the sum of the dense and of the fourth attended logits, as in the
paper's text; `head.prediction` of `masks` predicts by what the mask loss
supervises.
Reference: 51.9 mIoU, 79.3 pixel accuracy, 59 classes (the paper, Table 1, all
losses); 49.0, 78.9 after 20 epochs (Table 3). From ImageNet weights.
Reference of `r101`: 53.0 mIoU, 80.6 pixel accuracy, 59 classes (the paper,
Table 1, all losses); 50.1, 79.2 after 20 epochs (Table 3). From ImageNet
weights.
Reference of `effnetb7`: 55.3 mIoU, 81.6 pixel accuracy, 59 classes (the paper,
Table 1, all losses). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 80 epochs.
  config = common.run(batch_size=16, total_steps=24_990, eval_every=2_499)
  config.data = common.pcontext59((480, 480), long_side=520)
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      backbone=common.resnet(50, stem="deep64", dilation="contracted"),
      head=dict(name="sanet"),
  )
  config.loss = dict(
      mask=common.cross_entropy("mask_logits"),
      category=common.presence("category_logits"),
      dense=common.cross_entropy("dense_logits", 0.8),
  )
  config.optim = common.sgd(
      0.001, weight_decay=1e-4, lr_multipliers=dict(head=10.0)
  )
  config.eval = common.evaluation(config.data, "slide")
  return common.apply_variants(config, variants, VARIANTS)


def _effnetb7(config):
  config.model.backbone = dict(
      name="efficientnet", variant="b7", output_stride=8
  )


VARIANTS = {
    "r101": common.resnet101,
    "effnetb7": _effnetb7,
    "smoke": common.photographs_smoke,
}
