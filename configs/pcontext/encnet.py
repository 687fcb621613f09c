r"""EncNet, ResNet-50, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/encnet.py \
      --workdir runs/pcontext_encnet

Variants: `r101`, `smoke`. Recipe of the authors' code (PyTorch-Encoding), in
which the long side of every image is 0.5 to 2 times 520; features of stages 2
and 3 join the head's. Evaluations merge windows and views as there.
Reference: 49.2 mIoU, 79.4 pixel accuracy (the paper, PASCAL-Context ablation,
encoding and SE-loss); 51.0, 79.2 with six scales and flips in the code that
this config follows. From ImageNet weights.
Reference of `r101`: 51.7 mIoU, 80.4 pixel accuracy at one scale; 52.6, 81.2 at
six (the paper, PASCAL-Context ablation); 54.1, 80.7 with six scales and flips
in the code that this config follows. From ImageNet weights.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 80 epochs.
  config = common.run(batch_size=16, total_steps=24_990, eval_every=2_499)
  config.data = common.pcontext59((480, 480), long_side=520)
  recipes.pytorch_encoding(config, depth=50, lateral=True, learning_rate=0.001)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = {"r101": common.resnet101, "smoke": common.photographs_smoke}
