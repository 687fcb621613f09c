r"""EMANet, ResNet-101, output stride 8, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/emanet.py --workdir runs/voc_emanet

Variants: `r50_d16` (the comparison of MFNet, see `configs/voc/mfnet.py`),
`r50_d16_report` (with the `report_recipe` of MFNet), `smoke`. Recipe of the
authors' code, with the rate changed at every step instead of every tenth:
biases learn at twice the rate, only kernels decay, batch norms remember 0.9997.
`--config.model.head.softmax_scale` is the paper's lambda, 1 in the code.
Reference: 80.05 mIoU on val at one scale, 81.32 with six scales and flips, from
ImageNet weights (the authors' code, VOC 2012 table).
Reference of `r50_d16`: 70.05 mIoU, 34.65 M parameters (the MFNet report). From
ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.run(batch_size=16, total_steps=30_000, eval_every=5_000)
  config.data = common.voc2012((513, 513))
  config.model = dict(
      dtype="bfloat16",
      align_corners=True,
      norm=dict(momentum=0.9997),
      backbone=common.resnet(
          101, stem="deep64", dilation="multi_grid_contracted"
      ),
      head=dict(name="emanet", channels=512, num_bases=64, num_iters=3),
  )
  config.loss = common.over_all_pixels(ce=common.cross_entropy("logits"))
  config.optim = common.sgd(
      0.009,
      weight_decay=1e-4,
      weight_decay_mask="kernels",
      lr_multipliers={"*/bias": 2.0},
  )
  config.eval = common.evaluation(config.data)
  return common.apply_variants(config, variants, VARIANTS)


def _r50_d16(config):
  recipes.mfnet_report(config, config.model.head)


def _r50_d16_report(config):
  _r50_d16(config)
  recipes.mfnet_report_recipe(config)


VARIANTS = {
    "r50_d16": _r50_d16,
    "r50_d16_report": _r50_d16_report,
    "smoke": common.photographs_smoke,
}
