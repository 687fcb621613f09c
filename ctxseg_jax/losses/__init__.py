"""Losses as (sum, count), so that a mean can be taken over all devices.

Devices see different numbers of labelled pixels: a mean of their means would
be a noisier loss than the papers'. The caller sums both parts over the devices
and divides once. Nothing in a loss depends on which images share a device: what
is no sum over pixels is one over images.

A loss maps `logits`, unnormalised class scores [B, ..., num_classes], and
`labels`, integer classes [B, ...], to a sum and a count, both scalars. Pixels
whose label is `ignore_label` are in neither.
"""

from ctxseg_jax.losses.context import class_area as class_area
from ctxseg_jax.losses.context import class_presence as class_presence
from ctxseg_jax.losses.context import mean_squared_residual
from ctxseg_jax.losses.context import presence_bce
from ctxseg_jax.losses.pixels import error_rate
from ctxseg_jax.losses.pixels import focal
from ctxseg_jax.losses.pixels import ohem_cross_entropy
from ctxseg_jax.losses.pixels import resize_labels as resize_labels
from ctxseg_jax.losses.pixels import softmax_cross_entropy
from ctxseg_jax.losses.regions import dice
from ctxseg_jax.losses.regions import lovasz_softmax
from ctxseg_jax.losses.term import Term as Term

LOSSES = {
    "dice": dice,
    "error_rate": error_rate,
    "focal": focal,
    "lovasz_softmax": lovasz_softmax,
    "mean_squared_residual": mean_squared_residual,
    "ohem_cross_entropy": ohem_cross_entropy,
    "presence_bce": presence_bce,
    "softmax_cross_entropy": softmax_cross_entropy,
}

# Losses that are a sum over pixels, which a term's `denominator` divides.
PIXEL_LOSSES = {"focal", "ohem_cross_entropy", "softmax_cross_entropy"}

# Those of them that score a pixel without looking at others.
ADDITIVE_LOSSES = PIXEL_LOSSES - {"ohem_cross_entropy"}
