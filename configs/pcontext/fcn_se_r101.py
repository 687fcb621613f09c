r"""FCN with squeeze-and-excitation, ResNet-101, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/fcn_se_r101.py \
      --workdir runs/pcontext_fcn_se_r101

Variant: `smoke`. As `configs/pcontext/sanet_r101.py` for the 20 epochs of the
paper's comparison.
Reference: 45.7 mIoU, 76.6 pixel accuracy (the SANet paper, Table 3, FCN101-SE).
From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs.pcontext import fcn_se_r50


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  return fcn_se_r50.get_config(variant, depth=101)
