r"""SCA on a dilated FCN, VGG16, Cityscapes.

  python -m ctxseg_jax.data.prepare --dataset cityscapes --source cityscapes \
      --data_dir data
  python train.py --config configs/cityscapes/sca.py \
      --workdir runs/cityscapes_sca

Variants: `deeplabv2` (SCA on DeepLabV2, VGG16, output stride 8: the baselines
of the abstract), `deeplabv2_concat` (on what the summary calls DeepLabV2,
ResNet-101, output stride 16), `no_sca` (nothing but the module is gone),
`logits` and `scores` (other readings of the module), `smoke`. Rate, batch,
epochs and size of the summary of the paper that this follows; it gives no
schedule, so poly, and no augmentation, so scales and flips. Without batch norms
the rate of 0.01 may be too high: 0.001 is the next to try. Of VGG weights the
convolutions are taken and no dense layer, as there; `init_from.fresh=()` takes
these too.
Reference: none, the summary has no figures.
Reference of `no_sca`, `deeplabv2` and `deeplabv2,no_sca`: none, no figures.
Reference of `deeplabv2_concat` and `deeplabv2_concat,no_sca`: none.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs import common
from configs import recipes


def get_config(variants: str = "") -> config_dict.ConfigDict:
  """Returns the config with its variants applied."""
  # 50 epochs.
  config = common.run(batch_size=16, total_steps=9_296, eval_every=930)
  config.data = common.cityscapes((512, 512))
  recipes.sca(config)
  return common.apply_variants(config, variants, VARIANTS)


VARIANTS = recipes.SCA_VARIANTS
