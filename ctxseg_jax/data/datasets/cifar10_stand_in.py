"""Drawn images in the shape of CIFAR-10, to try its networks without it.

Ten classes, five shapes with stripes either way, that a network learns in
minutes. Nothing of it is CIFAR-10: an accuracy here says that training and
evaluation work, and nothing about what a network reaches there.
"""

import numpy as np

from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.data.datasets import cifar10

SHAPES = ("disc", "square", "ring", "cross", "triangle")
CLASS_NAMES = tuple(
    f"{shape}_{stripes}"
    for stripes in ("across", "upright")
    for shape in SHAPES
)
SIZE = cifar10.SIZE

_SEEDS = {"train": 20_240_601, "test": 20_240_602}


def draw(split: str, index: int) -> tuple[np.ndarray, int]:
  """Draws an image, uint8 [32, 32, 3]; returns it and its class, index % 10."""
  rng = np.random.default_rng((_SEEDS[split], index))
  label = index % len(CLASS_NAMES)
  radius = rng.uniform(7, 11)
  y, x = np.indices((SIZE, SIZE)) - rng.uniform(11, SIZE - 12, (2, 1, 1))
  square = np.maximum(np.abs(y), np.abs(x)) <= radius
  distance = np.hypot(y, x)
  inside = {
      "disc": distance <= radius,
      "square": square,
      "ring": (distance <= radius) & (distance >= 0.55 * radius),
      "cross": square & (np.minimum(np.abs(y), np.abs(x)) <= 0.3 * radius),
      "triangle": square & (2 * np.abs(x) <= y + radius),
  }[SHAPES[label % len(SHAPES)]]
  along = x if label >= len(SHAPES) else y
  striped = (along + rng.uniform(0, 4)) % 4 < 2
  ground, dark, light = (rng.uniform(low, low + 60, 3) for low in (90, 10, 185))
  image = np.where(striped[..., None], dark, light)
  image = np.where(inside[..., None], image, ground)
  image += rng.normal(scale=12, size=image.shape)
  return np.clip(np.rint(image), 0, 255).astype(np.uint8), label


def find(
    source: None = None, *, any_size: bool = False
) -> dict[str, list[tuple[str, np.ndarray, int]]]:
  """Draws every example; see `cifar10.find`."""
  del source, any_size
  return {
      split: [
          (f"{split}_{i:05d}", *draw(split, i))
          for i in range(SPEC.split_sizes[split])
      ]
      for split in _SEEDS
  }


SPEC = spec_lib.DatasetSpec(
    name="cifar10_stand_in",
    class_names=CLASS_NAMES,
    mean=(121.6, 122.4, 121.0),
    split_sizes={"train": 2_000, "test": 500},
    find=find,
    read=cifar10.read,
    needs_source=False,
    task="classification",
    description=__doc__,
    references={"test": {"accuracy of a guess": 0.1}},
)
