"""A network of `benchmarks.networks` on the embedded data set.

`benchmarks.startup` passes it to `train.py`; the variant is the network's name:
`benchmarks/startup_config.py:encnet_r50`.
"""

from ml_collections import config_dict

from benchmarks import networks
from configs import common


def get_config(variant: str = "encnet_r50") -> config_dict.ConfigDict:
  """Returns a config of two steps that keeps nothing before the end."""
  config = networks.config(variant, "mmsegmentation", networks.Shape())
  config.data = common.context_scenes()
  config.batch_size = 2
  config.total_steps = 2
  config.log_every = 1
  config.eval.short_side = config.eval.long_side = None
  return config
