"""Which batches, or else which tiles, fit into memory."""

from collections.abc import Callable
from collections.abc import Sequence
import math

from ctxseg_jax import errors
from ctxseg_jax.evaluation import tiling

# Sides of the cores of tiles, of which the largest that fits is taken.
_CORES = (
    3072,
    2560,
    2048,
    1792,
    1536,
    1280,
    1024,
    896,
    768,
    640,
    512,
    384,
    256,
    128,
    64,
)
# What a pixel takes is found out with tiles of such cores, before a whole image
# of more pixels than so many is tried.
_PROBE, _PROBED = 256, 2_000_000

# Returns the bytes that a number of images takes with cores of a size (None is
# whole images), and the tiles. A `UserError` says that there is no memory.
TryOut = Callable[[int, int | None], tuple[int, tiling.Tiles]]


def choose(
    try_out: TryOut,
    shapes: Sequence[tuple[int, int]],
    *,
    most: int,
    bound: float,
    margin: int,
    foresees: bool,
    slack: float,
) -> tuple[int, int, tiling.Tiles]:
  """Finds the largest batch of whole images that fits, or else largest tiles.

  Args:
    try_out: Compiles what an attempt takes.
    shapes: (H, W) of the predictions of a group, then those of its views.
    most: Images of the largest batch.
    bound: Bytes that predictions may take.
    margin: Pixels that the network sees on every side of a tile.
    foresees: Whether the bytes of an attempt tell those of larger ones, which
      are then not compiled in vain.
    slack: How many times the bytes of the smallest tiles larger ones may take
      where nothing fits: small tiles are slow.

  Returns:
    The bytes, the number of images and the tiles. They are more than the bound
    where nothing fits: then those of the largest tiles within the slack.

  Raises:
    UserError: There is no memory for any attempt.
  """
  attempts = [(most >> i, None) for i in range(most.bit_length())]
  attempts += [(1, core) for core in _CORES if core < max(shapes[0])]
  per_pixel = 0
  if foresees and math.prod(shapes[0]) > _PROBED:
    used, tiles = try_out(1, _PROBE)
    per_pixel = used / math.prod(tiles.largest)
  found = []
  for number, core in attempts:
    estimate = number * _estimate(shapes, core, per_pixel, margin)
    is_last = (number, core) == attempts[-1]
    if estimate > bound and not is_last:
      continue
    try:
      used, tiles = try_out(number, core)
    except errors.UserError:
      if is_last and not found:
        raise
      continue
    found.append((used, number, tiles))
    if used <= bound:
      return found[-1]
    if foresees:
      per_pixel = used / number / math.prod(tiles.largest)
  least = min(used for used, *_ in found)
  return next(x for x in found if x[0] <= slack * least)


def _estimate(shapes, core, per_pixel, margin):
  """Returns how many bytes an image may take, given those of a pixel."""
  view = max(shapes[1:], key=math.prod)
  if core is None:
    # Less than that, often, as a pixel of a small tile takes more: what may
    # fit is tried.
    return 0.6 * per_pixel * math.prod(view)
  side = core + 2 * margin + tiling.ALIGNMENT
  ratio = math.prod(view) / math.prod(shapes[0])
  return per_pixel * ratio * math.prod(min(side, n) for n in shapes[0])
