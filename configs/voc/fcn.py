r"""FCN-32s, VGG16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/fcn.py --workdir runs/voc_fcn

Variants: `fcn8s` (adds the scores of pool3 and pool4, all trained at once),
`smoke`. Recipe of the first code: one image a step, the sum of its pixels'
losses (hence the rate), biases at twice the rate and without decay. Here every
image is padded to 512x512, without scaling.
Reference: 63.63 mIoU on the part of val that SBD leaves; 62.84 in PyTorch
(wkentaro/pytorch-fcn, table, FCN-32s). From ImageNet weights.
Reference of `fcn8s`: 65.40 mIoU on the part of val that SBD leaves; 64.74 in
PyTorch (wkentaro/pytorch-fcn, table, FCN-8s at once). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  config = common.run(batch_size=1, total_steps=100_000, eval_every=4_000)
  config.data = common.voc2012((512, 512), scale_range=(1.0, 1.0), flip=False)
  config.model = dict(
      dtype="bfloat16",
      align_corners=False,
      backbone=dict(name="vgg16", form="fcn"),
      head=dict(name="fcn_vgg", form="32s"),
  )
  config.loss = dict(ce=common.cross_entropy("logits", denominator="one"))
  config.optim = common.sgd(
      1e-10,
      weight_decay=5e-4,
      momentum=0.99,
      weight_decay_mask="kernels",
      lr_multipliers={"*/bias": 2.0},
      schedule=dict(name="constant"),
  )
  config.eval = common.evaluation(config.data)
  return common.apply_variants(config, variants, VARIANTS)


def _fcn8s(config):
  config.model.head.form = "8s"


VARIANTS = {"fcn8s": _fcn8s, "smoke": common.photographs_smoke}
