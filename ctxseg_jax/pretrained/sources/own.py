"""Our own files, written by `python -m ctxseg_jax.pretrained.export`.

Tensors are called by their paths and laid out as they are here.
"""

from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.pretrained.sources.naming import Part


def _heads(head, aux_head):
  del head
  if aux_head is None:
    left_out = ((r"\w+/aux_head/.*", naming.NO_AUX_HEAD),)
    return (Part("head", "", None),), left_out
  return (Part("head", "", None), Part("aux_head", "", None)), ()


SOURCE = naming.Source(
    backbone=lambda backbone, prefix: (Part("backbone", "", None),),
    heads=_heads,
    left_out=(),
    beside_backbone=((r"\w+/(aux_)?head/.*", "heads"),),
    conventions=lambda network: {},  # All of it is in the file's config.
    mean=None,
    std=None,
)
