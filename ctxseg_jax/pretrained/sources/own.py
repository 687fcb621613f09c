"""Our own files, written by `python -m ctxseg_jax.pretrained.export`.

Tensors are called by their paths and laid out as they are here.
"""

from ctxseg_jax.pretrained.sources import naming

SOURCE = naming.Source(
    backbones=None,
    heads=None,
    aux_heads=None,
    left_out=(),
    beside_backbone=((r"\w+/(aux_)?head/.*", "heads"),),
    conventions=lambda network: {},  # All of it is in the file's config.
    whole_conventions={},
    normalisation=None,
)
