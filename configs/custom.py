r"""EncNet, ResNet-50, on your own images and labels.

  python train.py --config configs/custom.py --config.data.root=DIR \
      --workdir runs/mine

DIR holds classes.txt, a class per line in the order of the ids in the labels,
and images/{train,val}/ and labels/{train,val}/ with files of the same names, or
lists train.txt and val.txt with an image and its label per line; or it is an
export of CVAT, Roboflow, LabelMe or COCO (docs/data.md). The first start checks
and packs it; `python -m ctxseg_jax.data.check --dataset custom --source DIR`
lists all faults at once.

Variants: `small` (a shallow network, for a CPU), `smoke` (4 steps of it). Write
them after a colon: `configs/custom.py:small`.

Recipe of the authors' code for data of about 10,000 images; with fewer, fewer
steps do. Nothing is pretrained here, which costs much on small data.
Ours: the full recipe was not run.
Ours of `small`: CamVid's folders as own data, 600 steps (7 minutes on 2 busy
CPU cores), 23.42 test mIoU, where the most frequent class of each pixel reaches
17.0.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.run(
      batch_size=16, total_steps=40_000, log_every=20, eval_every=2_000
  )
  config.data = common.custom(crop_size=(480, 480))
  config.model = dict(
      dtype="float32",
      align_corners=False,
      backbone=dict(name="resnet", depth=50, output_stride=8),
      head=dict(name="encnet"),
      aux_head=dict(name="fcn", stage="stage3"),
  )
  config.loss = dict(
      ce=common.cross_entropy("logits"),
      se=common.presence("se_logits"),
      aux=common.cross_entropy("aux_logits", 0.2),
  )
  config.optim = common.sgd(
      0.01, weight_decay=1e-4, lr_multipliers=dict(head=10.0, aux_head=10.0)
  )
  config.eval = common.evaluation(
      config.data, batch_size_per_device=1, num_pictures=4
  )
  return common.apply_variants(config, variants, VARIANTS)


def _small(config):
  config.batch_size = 8
  config.total_steps = 2_000
  config.data.crop_size = (192, 192)
  config.model.backbone = dict(name="shallow", channels=64)
  config.model.head = dict(
      name="encnet", channels=64, num_codewords=32, dropout_rate=0.0
  )
  del config.model.aux_head
  del config.loss.aux
  del config.optim.lr_multipliers.aux_head
  config.checkpoint_every = 200
  config.eval_every = 500


def _smoke(config):
  if config.model.backbone.name != "shallow":
    _small(config)
  common.smoke(config)
  config.data.crop_size = (48, 48)


VARIANTS = {"small": _small, "smoke": _smoke}
