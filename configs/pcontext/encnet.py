r"""EncNet, ResNet-50, output stride 8, PASCAL-Context.

  python -m ctxseg_jax.data.prepare --dataset pcontext59 --source VOCdevkit \
      --data_dir data
  python train.py --config configs/pcontext/encnet.py \
      --workdir runs/pcontext_encnet

Variants after the paper: `paper`, its network (the gate multiplies, codewords
are summed without a projection, nothing is lateral, and a second encoding on
stage 3 has an SE-loss of its own in the place of the auxiliary FCN);
`paper_recipe` (50 epochs, turned by up to 10 degrees); `fcn` (the baseline);
`no_se` (without SE-loss); `alpha01`, `alpha04`, `alpha08` (the weight of the
SE-loss in tenths, else 2); `k0`, `k8`, `k16`, `k64` (codewords, else 32).

Variants: `r101`, `smoke`. Recipe of the authors' code (PyTorch-Encoding), in
which the long side of every image is 0.5 to 2 times 520; features of stages 2
and 3 join the head's. Evaluations merge windows and views as there.
Reference: 49.2 mIoU, 79.4 pixel accuracy (the paper, PASCAL-Context ablation,
encoding and SE-loss); 51.0, 79.2 with six scales and flips in the code that
this config follows. From ImageNet weights.
Reference of `r101`: 51.7 mIoU, 80.4 pixel accuracy at one scale; 52.6, 81.2 at
six (the paper, PASCAL-Context ablation); 54.1, 80.7 with six scales and flips
in the code that this config follows. From ImageNet weights.
Reference of `paper,paper_recipe`: 49.2 mIoU, 79.4 pixel accuracy (the paper,
PASCAL-Context ablation, encoding and SE-loss). From ImageNet weights.
Reference of `no_se,paper,paper_recipe`: 47.6 mIoU, 78.1 pixel accuracy (the
paper, PASCAL-Context ablation, encoding alone). From ImageNet weights.
Reference of `r101,paper,paper_recipe`: 51.7 mIoU, 80.4 pixel accuracy at one
scale; 52.6, 81.2 at six (the paper, PASCAL-Context ablation). From ImageNet
weights.
Reference of `fcn,paper_recipe`: 41.0 mIoU, 73.4 pixel accuracy (the paper,
PASCAL-Context ablation); 45.7, 76.0 in the first release of the code. From
ImageNet weights.
Ours: not trained yet.
"""

import functools

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


VARIANTS = {
    "r101": common.resnet101,
    "fcn": recipes.encnet_fcn,
    "no_se": recipes.encnet_without_se_loss,
    "paper": recipes.encnet_paper,
    "paper_recipe": functools.partial(
        recipes.encnet_paper_recipe,
        learning_rate=0.001,
        total_steps=15_619,  # 50 epochs.
    ),
    **{
        f"alpha{tenths:02}": functools.partial(
            recipes.encnet_se_weight, weight=tenths / 10
        )
        for tenths in (1, 4, 8)
    },
    **{
        f"k{number}": functools.partial(recipes.encnet_codewords, number=number)
        for number in (0, 8, 16, 64)
    },
    "smoke": common.photographs_smoke,
}
