r"""EncNet, ResNet-101, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/encnet_r101.py \
      --workdir runs/pcontext_encnet_r101

Variant: `smoke`. Recipe of the authors' code (PyTorch-Encoding), in which the
long side of every image is 0.5 to 2 times 520; features of stages 2 and 3 join
the head's. Theirs multiplies the class scores of views after exp, ours averages
probabilities.
Reference: 51.7 mIoU, 80.4 pixel accuracy at one scale; 52.6, 81.2 at six (the
paper, PASCAL-Context ablation); 54.1, 80.7 with six scales and flips in the
code that this config follows. From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs.pcontext import encnet_r50


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  return encnet_r50.get_config(variant, depth=101)
