r"""SANet, ResNet-101, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/sanet_r101.py \
      --workdir runs/pcontext_sanet_r101

Variant: `smoke`. The paper gives rates, epochs and batch; the rest of the
recipe is EncNet's, which it builds on. The prediction is the sum of the dense
and of the fourth attended logits, as in the paper's text; `head.prediction` of
`masks` predicts by what the mask loss supervises.
Reference: 53.0 mIoU, 80.6 pixel accuracy, 59 classes (the paper, Table 1, all
losses); 50.1, 79.2 after 20 epochs (Table 3). From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs.pcontext import sanet_r50


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  return sanet_r50.get_config(variant, depth=101)
