"""Context heads, by the name used in configs."""

from ctxseg_jax.models.heads import danet
from ctxseg_jax.models.heads import deeplab
from ctxseg_jax.models.heads import deeplabv2
from ctxseg_jax.models.heads import double_attention
from ctxseg_jax.models.heads import emanet
from ctxseg_jax.models.heads import encnet
from ctxseg_jax.models.heads import fcn
from ctxseg_jax.models.heads import fcn_se
from ctxseg_jax.models.heads import fcn_vgg
from ctxseg_jax.models.heads import mfnet
from ctxseg_jax.models.heads import non_local
from ctxseg_jax.models.heads import pooled
from ctxseg_jax.models.heads import pspnet
from ctxseg_jax.models.heads import sanet
from ctxseg_jax.models.heads import sca

HEADS = {
    "danet": danet.DANetHead,
    "deeplabv2": deeplabv2.DeepLabV2Head,
    "deeplabv2_concat": deeplabv2.DeepLabV2ConcatHead,
    "deeplabv3": deeplab.DeepLabV3Head,
    "deeplabv3plus": deeplab.DeepLabV3PlusHead,
    "double_attention": double_attention.DoubleAttentionHead,
    "emanet": emanet.EMAHead,
    "encnet": encnet.EncNetHead,
    "encoding_aux": encnet.EncodingAuxHead,
    "fcn": fcn.FCNHead,
    "fcn_se": fcn_se.FCNSEHead,
    "fcn_vgg": fcn_vgg.FCNVGGHead,
    "mfnet": mfnet.MFHead,
    "nonlocal": non_local.NonLocalHead,
    "pooled": pooled.PooledHead,
    "pspnet": pspnet.PSPHead,
    "sanet": sanet.SANetHead,
    "sca": sca.SCAHead,
}
