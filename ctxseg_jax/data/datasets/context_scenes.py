"""Context scenes: generated images whose local appearance hides the class.

Every image belongs to one of four scenes (field, road, table, sea). Only a
patterned band along one side tells which. Objects of the same look carry a
different label in every scene: the same disc is a boulder, a wheel, a plate or
a buoy. A window of 81x81 pixels around an object holds no pixel of the band, so
a predictor that sees no further cannot pass `window_bound()`, and what a
context head adds can be read off against a known figure.

Two guarantees, both tested:

1. Nothing depends on the scene but the ink of the band and the labels: an
   index drawn under two scenes has the same pixels outside the band.
2. The Chebyshev distance of any object pixel to the band is over `GAP`.
"""

from typing import NamedTuple

import numpy as np

from ctxseg_jax.data import classes
from ctxseg_jax.data import images
from ctxseg_jax.data import spec as spec_lib

TRAIN_SEED = 1
VAL_SEED = 2
_SEEDS = {"train": TRAIN_SEED, "val": VAL_SEED}

SIZE = 128  # Pixels along a side of the image.
BAND = 16  # Width of the band.
GAP = 40  # Between objects and the band; the blind window is 2 * GAP + 1.
NUM_SCENES = 4
NUM_LOOKS = 3
CLASS_NAMES, PALETTE = classes.read_published("context_scenes")

_DISC, _BAR, _SQUARE = range(NUM_LOOKS)
_FIELD, _ROAD, _TABLE, _SEA = range(NUM_SCENES)
_MARGIN = 3  # Free pixels between two objects.
_ATTEMPTS = 60  # To place an object before it is left out.
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


class Scene(NamedTuple):
  """One drawn image."""

  image: np.ndarray  # uint8 RGB, [SIZE, SIZE, 3].
  label: np.ndarray  # uint8 train ids, [SIZE, SIZE].
  scene: int  # Which of the four scenes.
  look: np.ndarray  # int8, [SIZE, SIZE]; of the object there, -1 elsewhere.
  band: tuple[int, int, int, int]  # y0, y1, x0, x1, ends excluded.


def band_class(scene: int) -> int:
  """Returns the train id of a scene's band."""
  return 1 + scene


def object_class(look: int, scene: int) -> int:
  """Returns the train id of an object."""
  return 1 + NUM_SCENES + NUM_SCENES * look + scene


def draw(seed: int, index: int, scene: int | None = None) -> Scene:
  """Draws one image; a pure function of its arguments.

  The order of the random draws is part of the dataset: changing it changes
  every image.

  Args:
    seed: Which stream of images; `TRAIN_SEED` and `VAL_SEED` are the splits.
    index: Position in the stream.
    scene: Overrides the scene and nothing else.
  """
  rng = np.random.default_rng((seed, index))
  # The scene is the first draw and is drawn even if overridden, so that every
  # later draw is the same under all four.
  own_scene = int(rng.integers(NUM_SCENES))
  scene = own_scene if scene is None else scene
  ground = rng.uniform(90, 165, 3).astype(np.float32)
  image = ground + _smooth_noise(rng) * 14
  label = np.zeros((SIZE, SIZE), np.uint8)
  look = np.full((SIZE, SIZE), -1, np.int8)
  band = _band_box(side=int(rng.integers(4)))
  phase = rng.integers(0, 6)

  extra = int(rng.integers(1, 4))
  looks = [*range(NUM_LOOKS), *rng.integers(0, NUM_LOOKS, size=extra)]
  drawn, placed = Scene(image, label, scene, look, band), []
  for kind in looks:
    _place_object(rng, int(kind), drawn, placed)

  y0, y1, x0, x1 = band
  inside = (slice(y0, y1), slice(x0, x1))
  ink, paper = rng.uniform(15, 60), rng.uniform(195, 240)
  # From the middle column, so that a left-right flip keeps every pattern.
  inked = _pattern(scene, _Y[inside] + phase, _X[inside] - (SIZE - 1) / 2)
  image[inside] = np.where(inked[..., None], ink, paper)
  label[inside] = band_class(scene)

  image += rng.normal(size=image.shape).astype(np.float32) * 9
  image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
  return drawn._replace(image=image)


def cue_swap(seed: int, index: int) -> list[Scene]:
  """Draws one index under every scene: only band ink and labels differ."""
  return [draw(seed, index, scene=scene) for scene in range(NUM_SCENES)]


def window_bound() -> float:
  """Returns the best mIoU a predictor limited to the blind window can expect.

  Background and bands can be told locally and count as solved. On an object
  pixel the window looks the same in every scene, so the best left to do is to
  guess among the classes of its look. With each true on a share p of the area
  and class j guessed on a share q_j of it independently, IoU_j = p q_j /
  (p + q_j - p q_j). These are concave in q_j, so their sum is largest where all
  q_j are the same, p. Scenes are drawn uniformly: p = 1 / NUM_SCENES.
  """
  guessed = 1 / (2 * NUM_SCENES - 1)
  num_local, num_guessed = 1 + NUM_SCENES, NUM_LOOKS * NUM_SCENES
  return (num_local + num_guessed * guessed) / (num_local + num_guessed)


def find(source: None, *, any_size: bool) -> dict[str, list[tuple]]:
  """Returns split and index of every image to draw; there is no source."""
  del source, any_size
  return {
      split: [(split, index) for index in range(size)]
      for split, size in SPEC.split_sizes.items()
  }


def read(spec: spec_lib.DatasetSpec, item: tuple[str, int]) -> spec_lib.Example:
  """Draws an image of a split."""
  del spec
  split, index = item
  scene = draw(_SEEDS[split], index)
  return spec_lib.Example(
      f"{split}_{index:04d}", images.encode_png(scene.image), scene.label
  )


_WINDOW = 2 * GAP + 1
_BOUND_NAME = f"best possible mIoU of an {_WINDOW}x{_WINDOW} window"

SPEC = spec_lib.DatasetSpec(
    name="context_scenes",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    label_map=spec_lib.identity_map(len(CLASS_NAMES)),
    mean=(130.2, 129.6, 130.0),
    split_sizes={"train": 2048, "val": 256},
    find=find,
    read=read,
    needs_source=False,
    description=__doc__,
    # Of the images that are drawn, whichever they are.
    references=dict.fromkeys(("train", "val"), {_BOUND_NAME: window_bound()}),
)


def _smooth_noise(rng: np.random.Generator, nodes: int = 6) -> np.ndarray:
  # Bilinear from a coarse grid whose corner nodes lie on the corner pixels.
  grid = rng.normal(size=(nodes, nodes, 3)).astype(np.float32)
  position = np.linspace(0, nodes - 1, SIZE, dtype=np.float32)
  low = np.minimum(position.astype(np.int64), nodes - 2)
  part = position - low
  part_y, part_x = part[:, None, None], part[None, :, None]
  rows = grid[low] * (1 - part_y) + grid[low + 1] * part_y
  return rows[:, low] * (1 - part_x) + rows[:, low + 1] * part_x


def _band_box(side: int) -> tuple[int, int, int, int]:
  start, stop = [(0, BAND), (SIZE - BAND, SIZE)][side % 2]
  return (start, stop, 0, SIZE) if side < 2 else (0, SIZE, start, stop)


def _pattern(scene: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Returns where the band of a scene has ink."""
  if scene == _FIELD:  # Furrows at 45 degrees, mirrored about the middle.
    return (y + np.abs(x)) % 7 < 3.5
  if scene == _ROAD:  # Upright lanes.
    return np.abs((x + 3) % 6 - 3) < 1.5
  if scene == _TABLE:  # A weave of both directions.
    across = np.abs((x + 3) % 6 - 3) < 1.2
    return across | (np.abs((y + 3) % 6 - 3) < 1.2)
  return (y + np.sin(x * 2 * np.pi / 12)) % 6 < 3  # Waves.


def _place_object(
    rng: np.random.Generator,
    kind: int,
    drawn: Scene,
    placed: list[tuple[int, int, int, int]],
) -> None:
  """Draws shades, shape and position of an object and paints it in place."""
  dark = rng.uniform(30, 110) + rng.uniform(-12, 12, 3)
  light = rng.uniform(175, 240) + rng.uniform(-12, 12, 3)
  upright = False
  if kind == _DISC:
    half_y = half_x = rng.uniform(8, 13)
  elif kind == _BAR:
    half_y, half_x = rng.uniform(13, 19), rng.uniform(5, 7.5)
    upright = bool(rng.integers(2))
    if not upright:
      half_y, half_x = half_x, half_y
  else:
    half_y = half_x = rng.uniform(8, 12)
  reach_y, reach_x = int(np.ceil(half_y)), int(np.ceil(half_x))

  center = _find_place(rng, reach_y, reach_x, drawn.band, placed)
  if center is None:
    return
  center_y, center_x = center
  inside = (
      slice(center_y - reach_y, center_y + reach_y + 1),
      slice(center_x - reach_x, center_x + reach_x + 1),
  )
  y, x = _Y[inside] - center_y, _X[inside] - center_x
  if kind == _DISC:
    radius = np.hypot(y, x)
    mask, is_dark = radius <= half_y, radius > half_y - 2.5
  else:
    mask = (np.abs(y) <= half_y) & (np.abs(x) <= half_x)
    if kind == _BAR:
      is_dark = ((y if upright else x) + 64) % 8 < 4
    else:
      is_dark = ((y + 60) // 4 + (x + 60) // 4) % 2 < 1
  color = np.where(is_dark[..., None], dark, light)
  pixels = drawn.image[inside]
  pixels[...] = np.where(mask[..., None], color, pixels)
  drawn.look[inside][mask] = kind
  drawn.label[inside][mask] = object_class(kind, drawn.scene)


def _find_place(
    rng: np.random.Generator,
    reach_y: int,
    reach_x: int,
    band: tuple[int, int, int, int],
    placed: list[tuple[int, int, int, int]],
) -> tuple[int, int] | None:
  """Draws a centre away from band and objects, and notes the box."""
  band_y0, band_y1, band_x0, band_x1 = band
  for _ in range(_ATTEMPTS):
    center_y = int(rng.integers(reach_y + 1, SIZE - reach_y - 1))
    center_x = int(rng.integers(reach_x + 1, SIZE - reach_x - 1))
    y0, y1 = center_y - reach_y, center_y + reach_y
    x0, x1 = center_x - reach_x, center_x + reach_x
    distance = max(
        band_y0 - y1, y0 - (band_y1 - 1), band_x0 - x1, x0 - (band_x1 - 1)
    )
    touches = any(
        y0 <= bottom + _MARGIN
        and top - _MARGIN <= y1
        and x0 <= right + _MARGIN
        and left - _MARGIN <= x1
        for top, bottom, left, right in placed
    )
    if distance > GAP and not touches:
      placed.append((y0, y1, x0, x1))
      return center_y, center_x
  return None
