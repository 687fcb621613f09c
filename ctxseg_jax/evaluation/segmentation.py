"""From images to class maps: whole images or windows, scales, flips, tiles.

Shapes are few and fixed. An image is padded at its right and bottom to a
*canvas* that other images share, and matrices per image map the logits of the
canvas to the pixels of the image, so that one compiled program serves every
image of a canvas, whatever its own size. Where that takes too much memory, the
same is done tile by tile; see `tiling`.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import math
from typing import Annotated
from typing import Any
from typing import Literal

from absl import logging
import cv2
import flax.linen as nn
import jax
import numpy as np

from ctxseg_jax import bounds
from ctxseg_jax import errors
from ctxseg_jax import memory
from ctxseg_jax.data import transforms
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import forward
from ctxseg_jax.evaluation import tiling

Scales = Annotated[
    tuple[Annotated[float, bounds.Bounds(0.01, 100)], ...], bounds.NotEmpty()
]
Size = tuple[bounds.PositiveInt, bounds.PositiveInt]

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
_CPU_BYTES = 1e9


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a class map is made.

  Attributes:
    mode: "whole" runs the network on the whole image, "slide" on windows.
    scales: Factors the image is resized by; the views are merged as `merge`
      says.
    merge: "probabilities" averages the class probabilities of all views.
      "pytorch_encoding" does as the authors' code of EncNet, with windows: the
      exponentials of the logits are averaged over windows and added over
      scales, not divided by their sums, so that a confident view counts for
      more; `flip` adds the logits of the mirrored window before that; windows
      hang over the image, whose surroundings are black; and images are resized
      corner to corner.
    short_side: With `long_side`, the size that a scale of 1 stands for: the
      largest within both (`transforms.fit_scale`); without them, the image's
      own. Class maps come back at the image's own size.
    long_side: See `short_side`.
    flip: Whether to add the mirrored image of every scale.
    crop_size: (H, W) of the windows of "slide".
    stride: (H, W) between windows; None is two thirds of `crop_size`.
    max_canvases: The most padded shapes, hence compilations, per scale.
    batch_size_per_device: Images a device works on at once. Fixed per device
      and not per run, so that a prediction does not depend on the number of
      devices.
    memory_gb: What the predictions of a device may take, in GB (10^9 bytes).
      Batches become smaller until they fit, then images are predicted in
      tiles. None is 1 on CPUs and half of the memory of an accelerator.
    tile_margin: Pixels that the network sees on every side of a tile. Where its
      receptive field reaches no farther, tiles change nothing.
  """

  mode: Literal["whole", "slide"] = "whole"
  scales: Scales = (1.0,)
  merge: Literal["probabilities", "pytorch_encoding"] = "probabilities"
  short_side: bounds.PositiveInt | None = None
  long_side: bounds.PositiveInt | None = None
  flip: bool = False
  crop_size: Size | None = None
  stride: Size | None = None
  max_canvases: bounds.PositiveInt = 8
  batch_size_per_device: bounds.PositiveInt = 1
  memory_gb: bounds.PositiveFloat | None = None
  tile_margin: Annotated[int, bounds.Bounds(tiling.ALIGNMENT)] = 128

  def __post_init__(self):
    bounds.check_fields(self)
    if self.mode == "whole":
      if self.merges_exponentials:
        raise ValueError(f"merge: {self.merge!r} needs mode 'slide'")
      return
    if self.crop_size is None:
      raise ValueError("mode 'slide' needs crop_size=(H, W)")
    if any(s > c for s, c in zip(self.steps, self.crop_size, strict=True)):
      raise ValueError(
          f"stride: {self.stride} leaves gaps between windows of"
          f" {self.crop_size}; expected at most their size"
      )

  @property
  def merges_exponentials(self) -> bool:
    """Whether views are merged as PyTorch-Encoding does."""
    return self.merge == "pytorch_encoding"

  @property
  def steps(self) -> tuple[int, int]:
    """(H, W) between windows."""
    return self.stride or _default_stride(self.crop_size)

  def describe(self) -> str:
    """Returns in a few words what belongs beside an mIoU."""
    text = self.mode
    if self.mode == "slide":
      text += " {}x{}".format(*self.crop_size)
      if self.steps != _default_stride(self.crop_size):
        text += " every {}x{}".format(*self.steps)
    for name in ("short_side", "long_side"):
      if getattr(self, name) is not None:
        text += f", {name.replace('_', ' ')} {getattr(self, name)}"
    text += ", scales " + ",".join(f"{s:g}" for s in self.scales)
    text += ", flip" if self.flip else ""
    return text + (", merged as PyTorch-Encoding" * self.merges_exponentials)

  def scaled_size(self, size: Sequence[int], scale: float) -> tuple[int, int]:
    """Returns (H, W) of an image at one of the scales, rounded, at least 1.

    Halves are rounded up, as in the codes of mmsegmentation and EncNet.
    """
    scale *= transforms.fit_scale(size, self.short_side, self.long_side)
    # 375 * 0.78 may come out a little below 292.5.
    return tuple(max(1, math.floor(n * scale + 0.5 + 1e-6)) for n in size)


def _default_stride(crop_size):
  return tuple(max(1, n * 2 // 3) for n in crop_size)


def plan_canvases(
    sizes: np.ndarray, max_canvases: int
) -> tuple[np.ndarray, int]:
  """Rounds image sizes up until few distinct ones are left.

  Returns the canvas of every image of `sizes`, [N, 2], and the multiple they
  were rounded up to: 1 (no padding at all) if there are few sizes already.
  """
  multiple = 1
  while True:
    canvases = -(-np.asarray(sizes) // multiple) * multiple
    if len(np.unique(canvases, axis=0)) <= max_canvases:
      return canvases, multiple
    multiple *= 2


@dataclasses.dataclass(frozen=True)
class _Tiles:
  """How the images of a group are cut.

  Attributes:
    cores: Where cores start and end, by axis.
    boxes: The axes of the boxes, by scale.
  """

  cores: tuple[list[tuple[int, int]], ...]
  boxes: dict[float, tuple[tiling.Axis, ...]]

  @property
  def size(self) -> tuple[int, ...]:
    """(H, W) of a core."""
    return tuple(stop - start for (start, stop), *_ in self.cores)

  @property
  def count(self) -> int:
    return math.prod(map(len, self.cores))

  @property
  def largest(self) -> tuple[int, ...]:
    """(H, W) of the largest box."""
    boxes = (tuple(axis.box for axis in axes) for axes in self.boxes.values())
    return max(boxes, key=math.prod)


class Predictor(batching.Predictor):
  """Predicts a class for every pixel.

  `align_corners` is the convention for resizing logits, the model's own.
  """

  def __init__(
      self,
      model: nn.Module,
      mesh: jax.sharding.Mesh,
      *,
      settings: Settings,
      align_corners: bool = False,
      **kwargs: Any,
  ):
    self._slides = settings.mode == "slide"
    # Maps of whole images are brought to their size after the network; those
    # of windows are averaged at it.
    options = (
        dict(window=settings.crop_size)
        if self._slides
        else dict(upsample=False)
    )
    exponentials = settings.merges_exponentials
    if exponentials:
      options.update(exponentials=True, mirrored=settings.flip)
    super().__init__(model, mesh, settings=settings, **options, **kwargs)
    self._pad_color = np.rint(self.mean).astype(np.uint8) * (not exponentials)
    self._align_corners = align_corners or exponentials
    flips = (False, True) if settings.flip and not exponentials else (False,)
    self._views = list(itertools.product(settings.scales, flips))
    self._fusions = {
        x: forward.make_fusion(mesh, x, exponentials) for x in (False, True)
    }
    self._tiles = {}

  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Groups images [N, 2] by the canvases of themselves and every scale."""
    native, self.multiple = plan_canvases(sizes, self.settings.max_canvases)
    self._tiles.clear()
    groups = []
    for canvas in np.unique(native, axis=0):
      members = np.flatnonzero(np.all(native == canvas, axis=1))
      shapes = [tuple(canvas.tolist())]
      for scale in self.settings.scales:
        # Images that are not resized are shown on their canvas.
        least = [shapes[0]] if self._shows_unchanged(scale) else []
        least += [self.settings.crop_size] if self._slides else []
        scaled = [self._shown_size(sizes[i], scale) for i in members]
        shapes.append(tuple(map(max, *least, *scaled, (1, 1))))
      groups.append((tuple(shapes), members))
    return groups

  def tiled(self) -> list[str]:
    """Returns what of the last plan is predicted in tiles, and in which."""
    return [
        "{}x{} in {} tiles of {}x{}".format(
            *shapes[0], tiles.count, *tiles.size
        )
        for shapes, tiles in self._tiles.items()
        if tiles.count > 1
    ]

  def _shown_size(self, size, scale):
    """Returns (H, W) of a view with all that windows show of it."""
    settings = self.settings
    scaled = settings.scaled_size(size, scale)
    if not settings.merges_exponentials:
      return scaled
    return tuple(
        tiling.window_starts(n, crop, step, True)[-1] + crop
        for n, crop, step in zip(
            scaled, settings.crop_size, settings.steps, strict=True
        )
    )

  def _shows_unchanged(self, scale):
    sides = (self.settings.short_side, self.settings.long_side)
    return self.settings.mode == "whole" and scale == 1 and sides == (None,) * 2

  def _fit(self, variables, shapes, sizes, probabilities):
    """Takes the largest batch within the bound, or else the largest tiles."""
    bound, is_given = self.bound()
    most = self._at_once(len(sizes))
    attempts = [(most >> i, None) for i in range(most.bit_length())]
    attempts += [(1, core) for core in _CORES if core < max(shapes[0])]

    def try_out(number, core):
      tiles = self._make_tiles(variables, shapes, sizes, number, core)
      return self._prepare(variables, tiles, number, probabilities), tiles

    per_pixel = 0
    if not self._slides and math.prod(shapes[0]) > _PROBED:
      used, tiles = try_out(1, _PROBE)
      per_pixel = used / math.prod(tiles.largest)
    found = []
    for number, core in attempts:
      estimate = number * self._estimate(shapes, core, per_pixel)
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
        break
      if not self._slides:
        per_pixel = used / number / math.prod(tiles.largest)
    used, number, tiles = found[-1]
    if used > bound:
      if is_given:
        raise errors.UserError(
            f"{batching.images_of(number, tiles.largest)}: needs"
            f" {used / 1e9:.2g} GB of memory, more than memory_gb, which is"
            f" {bound / 1e9:g}; raise it, or lower {self._remedy}"
        )
      # Small tiles are slow: of what needs little more than the least, the
      # largest.
      least = min(used for used, *_ in found)
      used, number, tiles = next(x for x in found if x[0] <= 1.25 * least)
    if tiles.count > 1:
      logging.info(
          "Images of %dx%d pixels are predicted in %d tiles of %dx%d, for which"
          " the network sees up to %dx%d and takes %.2g GB; the bound is %.2g"
          " GB (memory_gb).",
          *shapes[0],
          tiles.count,
          *tiles.size,
          *tiles.largest,
          used / 1e9,
          bound / 1e9,
      )
    self._tiles[shapes] = tiles
    return number

  def _estimate(self, shapes, core, per_pixel):
    """Returns how many bytes an image may take, given those of a pixel."""
    view = max(shapes[1:], key=math.prod)
    if core is None:
      # Less than that, often, as a pixel of a small tile takes more: what may
      # fit is tried.
      return 0.6 * per_pixel * math.prod(view)
    side = core + 2 * self.settings.tile_margin + tiling.ALIGNMENT
    ratio = math.prod(view) / math.prod(shapes[0])
    return per_pixel * ratio * math.prod(min(side, n) for n in shapes[0])

  def bound(self) -> tuple[float, bool]:
    """Returns the most bytes per device, and whether the settings say so."""
    if self.settings.memory_gb is not None:
      return 1e9 * self.settings.memory_gb, True
    available = memory.device_bytes(self.mesh.local_devices[0])
    return (_CPU_BYTES if available is None else available / 2), False

  @property
  def _remedy(self):
    return (
        "crop_size or the scales"
        if self._slides
        else "tile_margin or the scales"
    )

  def _make_tiles(self, variables, shapes, sizes, number, most):
    """Returns tiles with cores of at most so many pixels a side, or one."""
    settings = self.settings
    cores = tuple(tiling.cores(n, most or n) for n in shapes[0])
    sizes = np.unique(sizes, axis=0).tolist()
    boxes = {}
    for scale, view in zip(settings.scales, shapes[1:], strict=True):
      scaled = [settings.scaled_size(size, scale) for size in sizes]
      axes = [
          tiling.make_axis(
              view[i],
              cores[i],
              [
                  (size[i], to[i])
                  for size, to in zip(sizes, scaled, strict=True)
              ],
              margin=settings.tile_margin,
              windows=self._slides
              and (settings.crop_size[i], settings.steps[i]),
              overhang=settings.merges_exponentials,
          )
          for i in range(2)
      ]
      box = [axis.box for axis in axes]
      coarse = self._logits_size(variables, number, view)
      coarse_box = self._logits_size(variables, number, box)
      boxes[scale] = tuple(
          dataclasses.replace(
              axis,
              coarse=coarse[i],
              coarse_box=coarse_box[i],
              align_corners=self._align_corners,
          )
          for i, axis in enumerate(axes)
      )
    return _Tiles(cores, boxes)

  def _logits_size(self, variables, number, size):
    """Returns (h, w) of the network's logits of images of a size."""
    if self._slides:
      return size
    images = self._abstract(number, *size, 3, dtype=np.uint8)
    return jax.eval_shape(self._network, variables, images).shape[1:3]

  def _prepare(self, variables, tiles, number, probabilities):
    """Compiles what tiles take; returns the bytes that it needs per device."""
    at_work, kept = 0, 0
    views = []
    for scale, _ in self._views:
      height, width = axes = tiles.boxes[scale]
      box = (height.box, width.box)
      what = batching.images_of(number, box)
      advice = dict(what=what, remedy=f"lower {self._remedy}")
      memory.require(3 * number * math.prod(box), **advice)
      inputs = [self._abstract(number, *box, 3, dtype=np.uint8)]
      if self._slides:
        count = height.num_windows * width.num_windows
        inputs.append(self._abstract(number, count, 2, dtype=np.int32))
        inputs.append(self._abstract(number, count))
      logits = jax.eval_shape(self._network, variables, *inputs)
      program = self._compile(self._network, variables, *inputs, **advice)
      at_work = max(at_work, memory.program_bytes(program) or 0)
      kept += 4 * math.prod(logits.shape) // self.mesh.size
      views.append(
          [
              self._abstract(number, *logits.shape[1:]),
              *(
                  self._abstract(number, n, axis.coarse_box)
                  for n, axis in zip(tiles.size, axes, strict=True)
              ),
          ]
      )
    fusion = self._fusions[probabilities]
    program = self._compile(fusion, *zip(*views, strict=True), **advice)
    return kept + max(at_work, memory.program_bytes(program) or 0)

  def _apply(self, variables, images, shapes, probabilities):
    """Predicts the pixels of image i in its first rows and columns."""
    tiles = self._tiles[shapes]
    views = {
        scale: [self._resized(image, scale) for image in images]
        for scale in self.settings.scales
    }
    whole = None
    for core in itertools.product(*tiles.cores):
      logits, ways = [], []
      for scale, flip in self._views:
        axes = tiles.boxes[scale]
        inputs, back = self._view(images, views[scale], axes, core, flip)
        inputs = map(self.put, inputs)
        logits.append(self._run(self._network, variables, *inputs))
        ways.append(map(self.put, back))
      rows, cols = zip(*ways, strict=True)
      out = self._run(self._fusions[probabilities], tuple(logits), rows, cols)
      if tiles.count == 1:
        return out
      parts = jax.tree.map(batching.local_rows, out)
      if whole is None:
        whole = jax.tree.map(
            lambda x: np.empty((len(x), *shapes[0], *x.shape[3:]), x.dtype),
            parts,
        )
      for target, part in zip(
          jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True
      ):
        target[:, slice(*core[0]), slice(*core[1])] = part
    return whole if probabilities else jax.tree.map(self.put, whole)

  def _resized(self, image, scale):
    size = image.shape[:2]
    target = self.settings.scaled_size(size, scale)
    if target == size:
      return image
    if self.settings.merges_exponentials:
      return _resize_corners(image, target)
    return cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR)

  def _view(self, images, scaled, axes, core, flip):
    """Returns the boxes of a core in one view of a batch, and the way back."""
    count = len(images)
    boxes = np.empty((count, *(axis.box for axis in axes), 3), np.uint8)
    boxes[:] = self._pad_color
    back = [
        np.empty((count, stop - start, axis.coarse_box), np.float32)
        for (start, stop), axis in zip(core, axes, strict=True)
    ]
    windows = []
    for i, (image, view) in enumerate(zip(images, scaled, strict=True)):
      places = [
          axis.place(core[j], image.shape[j], view.shape[j], flip and j == 1)
          for j, axis in enumerate(axes)
      ]
      for matrix, place in zip(back, places, strict=True):
        matrix[i] = place.back
      corner = (view[:, ::-1] if flip else view)[
          tuple(
              slice(p.start, p.start + axis.box)
              for p, axis in zip(places, axes, strict=True)
          )
      ]
      boxes[i, : corner.shape[0], : corner.shape[1]] = corner
      if self._slides:
        starts = map(tiling.Axis.windows, axes, places, view.shape)
        windows.append(list(itertools.product(*starts)))
    if not self._slides:
      return [boxes], back
    most = axes[0].num_windows * axes[1].num_windows
    starts = np.zeros((count, most, 2), np.int32)
    weights = np.zeros((count, most), np.float32)
    for i, found in enumerate(windows):
      starts[i, : len(found)] = found
      weights[i, : len(found)] = 1.0
    return [boxes, starts, weights], back


def _resize_corners(image, size):
  """Resizes an image so that the centres of its corners stay where they are."""
  steps = [
      (old - 1) / (new - 1) if new > 1 else 0.0
      for old, new in zip(image.shape, size, strict=False)
  ]
  matrix = np.array([[steps[1], 0.0, 0.0], [0.0, steps[0], 0.0]])
  return cv2.warpAffine(
      image,
      matrix,
      size[::-1],
      flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
      borderMode=cv2.BORDER_REPLICATE,
  )
