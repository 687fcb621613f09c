"""Context heads, by the name used in configs."""

from ctxseg_jax.heads import encnet
from ctxseg_jax.heads import fcn

HEADS = {
    "encnet": encnet.EncNetHead,
    "encoding_aux": encnet.EncodingAuxHead,
    "fcn": fcn.FCNHead,
}
