r"""FCN, ResNet-18, CamVid, from random weights: the baseline of
`encnet_r18_d8.py`, with the same data, schedule and width.

  python train.py --config configs/camvid/fcn_r18_d8.py \
      --workdir runs/camvid_fcn_r18

Variant: `smoke`.
Reference: none is published for this size and no pretraining; the per-pixel
prior of the training labels, which reads no image, has 17.0 mIoU on test.
Ours: not trained yet.
"""

from ml_collections import config_dict

from configs.camvid import encnet_r18_d8


def get_config(variant: str = "") -> config_dict.ConfigDict:
  """Returns the config of a variant."""
  config = encnet_r18_d8.get_config(variant)
  config.model.head = dict(name="fcn", channels=128)
  del config.loss.se_logits
  return config
