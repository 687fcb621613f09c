r"""FCN, ResNet-50, CamVid: the baseline of `encnet_r50_d8.py`.

  python train.py --config configs/camvid/fcn_r50_d8.py \
      --workdir runs/camvid_fcn_r50

Variant: `smoke`.
Reference: none published. Ours: not trained yet.
"""

from ml_collections import config_dict

from configs.camvid import encnet_r50_d8


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = encnet_r50_d8.get_config(variant)
  config.model.head = dict(name="fcn", channels=512)
  del config.loss.se_logits
  return config
