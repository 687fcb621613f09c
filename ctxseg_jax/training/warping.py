"""Crops of `data.transforms.Augmentation`, made on the devices.

As `cv2.warpAffine` of OpenCV 5: images are interpolated between pixel centres,
with the colour of padding around them, labels are those of the nearest pixel.
Pixels are gathered, which GPUs do well.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np


def warp(
    batch: Mapping[str, jax.Array],
    *,
    crop_size: Sequence[int],
    pad_color: Sequence[float],
    ignore_label: int,
) -> dict[str, jax.Array]:
  """Warps a batch of `data.transforms.Unwarped` examples.

  Returns:
    `"image"`, whole grey levels as float32 [B, h, w, 3], and `"label"` uint8
    [B, h, w], with (h, w) the crop's.
  """
  warp_one = functools.partial(
      _warp,
      crop_size=crop_size,
      pad_color=np.rint(pad_color).astype(np.float32),
      ignore_label=np.uint8(ignore_label),
  )
  names = ("image", "label", "size", "matrix")
  image, label = jax.vmap(warp_one)(*(batch[name] for name in names))
  return {"image": image, "label": label}


def _warp(image, label, size, matrix, *, crop_size, pad_color, ignore_label):
  row, column = (
      jnp.arange(n, dtype=jnp.float32).reshape(shape)
      for n, shape in zip(crop_size, ((-1, 1), (1, -1)), strict=True)
  )
  # At the pixels of the crop, in the image.
  x, y = (a * column + b * row + c for a, b, c in matrix)
  left, top = jnp.floor(x), jnp.floor(y)

  def pick(array, y, x, outside):
    y, x = y.astype(jnp.int32), x.astype(jnp.int32)
    inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
    place = jnp.where(inside, y * array.shape[1] + x, 0)
    pixels = array.reshape(-1, *array.shape[2:])[place]
    if pixels.ndim == 3:
      inside = inside[..., None]
    return jnp.where(inside, pixels, outside)

  def mix(first, second, share):
    return first + (second - first) * share[..., None]

  rows = [
      mix(
          pick(image, at, left, pad_color),
          pick(image, at, left + 1, pad_color),
          x - left,
      )
      for at in (top, top + 1)
  ]
  image = jnp.round(mix(*rows, y - top))
  label = pick(label, jnp.floor(y + 0.5), jnp.floor(x + 0.5), ignore_label)
  return image, label
