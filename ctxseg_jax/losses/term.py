"""One supervised output of the network."""

from collections.abc import Callable
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from ctxseg_jax.bounds import NonNegativeFloat
from ctxseg_jax.bounds import NonNegativeInt
from ctxseg_jax.bounds import PositiveInt

LossFn = Callable[..., tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
  """A loss of one output, and its share in the total.

  Attributes:
    output: The supervised output of the network.
    loss: A loss, its options bound.
    weight: Factor in the total.
    start_step: Step before which the term counts nothing.
    denominator: What a sum over pixels is divided by; at equal learning rates
      these are different recipes. "labelled": the labelled pixels (torch,
      PyTorch-Encoding, semseg). "pixels": all, ignored ones too
      (mmsegmentation's default, EMANet). "labelled_times_images": the labelled
      pixels, and once more the batch size (pytorch-deeplab-xception, MFNet).
      "one": nothing (the first FCN). Only for losses per pixel.
    num_chunks: Parts of the image, of whole rows, whose logits are upsampled
      and scored one after another, to hold a fraction of them in memory. Only
      for losses that are a plain sum over pixels.
  """

  output: str
  loss: LossFn
  weight: NonNegativeFloat = 1.0
  start_step: NonNegativeInt = 0
  denominator: Literal["labelled", "pixels", "labelled_times_images", "one"] = (
      "labelled"
  )
  num_chunks: PositiveInt = 1

  def mean(
      self, total: jax.Array, count: jax.Array, num_images: int, num_pixels: int
  ) -> jax.Array:
    """Returns the loss of the global batch from its sum and count."""
    divisor = {
        "labelled": count,
        "pixels": jnp.full_like(count, num_pixels),
        "labelled_times_images": count * num_images,
        "one": jnp.ones_like(count),
    }[self.denominator]
    return total / jnp.where(divisor > 0, divisor, 1.0)
