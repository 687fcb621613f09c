"""Rematerialisation: what the backward pass computes again instead of keeping.

Chen et al., "Training Deep Nets with Sublinear Memory Cost",
https://arxiv.org/abs/1604.06174. Sums over devices are always kept: batch norm
would synchronise again.
"""

from typing import Literal

import flax.linen as nn
import jax

Remat = Literal["none", "conv", "block"]

# Primitives whose results are kept for the backward pass.
_SUMS = ("psum", "psum_invariant")
_KEPT = {
    "conv": (*_SUMS, "conv_general_dilated", "dot_general"),
    "block": _SUMS,
}


def run_block(
    block: nn.Module, x: jax.Array, *, train: bool, remat: Remat
) -> jax.Array:
  """Returns `block(x, train=train)`, of which training keeps a part.

  Args:
    block: A submodule of the calling module.
    x: Its input, which is kept.
    train: As the block takes it.
    remat: "none" keeps all that the gradients need; "conv" the results of
      convolutions, not of batch norms and activations; "block" nothing inside.
  """
  if remat == "none" or not train:
    return block(x, train=train)

  def is_kept(primitive, *_, **__):
    return primitive.name in _KEPT[remat]

  def run(block, x):
    return block(x, train=train)

  return nn.remat(run, policy=is_kept)(block, x)
