r"""FCN-32s, VGG16, PASCAL VOC 2012.

  python -m ctxseg_jax.data.prepare --dataset voc2012 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/voc/fcn.py --workdir runs/voc_fcn

Variants: `fcn8s` (adds the scores of pool3 and pool4, all trained at once),
`fcn16s` and `fcn8s_staged`, `smoke`. Recipe of the first code: one image a
step, the sum of its pixels' losses (hence the rate), biases at twice the rate
and without decay. Here every image is padded to 512x512, without scaling.

In stages, each at a hundredth of the rate before, with new scores that start at
zero, the networks are trained by the command above and

  python train.py --config configs/voc/fcn.py:fcn16s --workdir runs/voc_fcn16s \
      --config.init_from.source=ctxseg_jax \
      --config.init_from.path=runs/voc_fcn
  python train.py --config configs/voc/fcn.py:fcn8s_staged \
      --workdir runs/voc_fcn8s --config.init_from.source=ctxseg_jax \
      --config.init_from.path=runs/voc_fcn16s

Reference: 63.63 mIoU on the part of val that SBD leaves; 62.84 in PyTorch
(wkentaro/pytorch-fcn, table, FCN-32s). From ImageNet weights.
Reference of `fcn8s`: 65.40 mIoU on the part of val that SBD leaves; 64.74 in
PyTorch (wkentaro/pytorch-fcn, table, FCN-8s at once). From ImageNet weights.
Reference of `fcn16s`: 65.01 mIoU on the part of val that SBD leaves; 64.91 in
PyTorch (wkentaro/pytorch-fcn, table, FCN-16s). From the weights of FCN-32s.
Reference of `fcn8s_staged`: 65.51 mIoU on the part of val that SBD leaves,
67.2 on the test server; 65.49 in PyTorch (wkentaro/pytorch-fcn, table, FCN-8s;
the authors' code, VOC models). From the weights of FCN-16s.
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


def _fcn16s(config):
  _later_stage(config, "16s", 1e-12)


def _fcn8s_staged(config):
  _later_stage(config, "8s", 1e-14)


def _later_stage(config, form, learning_rate):
  config.model.head.form = form
  config.model.head.at_once = False
  config.optim.learning_rate = learning_rate


VARIANTS = {
    "fcn8s": _fcn8s,
    "fcn16s": _fcn16s,
    "fcn8s_staged": _fcn8s_staged,
    "smoke": common.photographs_smoke,
}
