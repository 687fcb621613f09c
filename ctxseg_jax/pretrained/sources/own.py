"""Our own files, written by `python -m ctxseg_jax.pretrained.export`.

Tensors are called by their paths and laid out as they are here.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Part
from ctxseg_jax.pretrained.sources.naming import Rule

_ALL = (Rule(".*", lambda m: m.string, "same"),)


def _whole(model):
  parts = (Part("head", "", _ALL), Part("aux_head", "", _ALL))
  if model.get("aux_head"):
    return parts, ()
  return parts, ((r"\w+/aux_head/.*", naming.NO_AUX_HEAD),)


SOURCE = naming.Source(
    backbone=lambda model, prefix: (Part("backbone", "", _ALL),),
    whole=_whole,
    left_out=(),
    beside_backbone=((r"\w+/(aux_)?head/.*", "heads"),),
    # All of it is in the file's config.
    conventions=lambda network: {},
    mean=None,
    std=None,
)
