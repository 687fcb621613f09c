"""Context heads, by the name used in configs.

A head maps `features`, the outputs of a backbone by name, [B, h, w, C] each,
to a dict of float32 outputs: `"logits"`, [B, h, w, num_classes] at a size of
its own, and what else its paper supervises, with names that end in `_logits`.
Features that do not suit it and its options are refused with a `ValueError`.
`train` is whether batch norms use and update batch statistics, dropout drops,
and other state is updated; the collections must then be mutable. What context
is made of is exposed to be looked at (`layers.expose`).

In all heads `num_classes` is without the ignored label, `norm` the settings of
the batch norms, and `dtype` the compute dtype, from which parameters,
softmaxes, means over an image and logits are exempt: they are float32.
"""

from ctxseg_jax.models.heads import danet
from ctxseg_jax.models.heads import deeplabv2
from ctxseg_jax.models.heads import deeplabv3
from ctxseg_jax.models.heads import deeplabv3plus
from ctxseg_jax.models.heads import double_attention
from ctxseg_jax.models.heads import emanet
from ctxseg_jax.models.heads import encnet
from ctxseg_jax.models.heads import encoding_aux
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
    "deeplabv3": deeplabv3.DeepLabV3Head,
    "deeplabv3plus": deeplabv3plus.DeepLabV3PlusHead,
    "double_attention": double_attention.DoubleAttentionHead,
    "emanet": emanet.EMAHead,
    "encnet": encnet.EncNetHead,
    "encoding_aux": encoding_aux.EncodingAuxHead,
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
