"""Context heads, by the name used in configs."""

from ctxseg_jax.heads import danet
from ctxseg_jax.heads import deeplab
from ctxseg_jax.heads import double_attention
from ctxseg_jax.heads import emanet
from ctxseg_jax.heads import encnet
from ctxseg_jax.heads import fcn
from ctxseg_jax.heads import non_local
from ctxseg_jax.heads import pooled
from ctxseg_jax.heads import pspnet

HEADS = {
    "danet": danet.DANetHead,
    "deeplabv3": deeplab.DeepLabV3Head,
    "deeplabv3plus": deeplab.DeepLabV3PlusHead,
    "double_attention": double_attention.DoubleAttentionHead,
    "emanet": emanet.EMAHead,
    "encnet": encnet.EncNetHead,
    "encoding_aux": encnet.EncodingAuxHead,
    "fcn": fcn.FCNHead,
    "nonlocal": non_local.NonLocalHead,
    "pooled": pooled.PooledHead,
    "pspnet": pspnet.PSPHead,
}
