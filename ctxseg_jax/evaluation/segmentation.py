"""From images to class maps: whole images or windows, scales, flips, tiles.

Shapes are few and fixed. An image is padded at its right and bottom to a
*canvas* that other images share, and matrices per image map the logits of the
canvas to the pixels of the image, so that one compiled program serves every
image of a canvas, whatever its own size. Where that takes too much memory, the
same is done tile by tile; see `tiling`.
"""

import dataclasses
import itertools
import math
import operator
from typing import Any

from absl import logging
import cv2
import flax.linen as nn
import jax
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import memory
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import fitting
from ctxseg_jax.evaluation import forward
from ctxseg_jax.evaluation import procedure
from ctxseg_jax.evaluation import tiling

_CPU_BYTES = 1e9


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


class Predictor(batching.Predictor):
  """Predicts a class for every pixel.

  `align_corners` is the convention for resizing logits, the model's own.
  """

  def __init__(
      self,
      model: nn.Module,
      mesh: jax.sharding.Mesh,
      *,
      settings: procedure.Settings,
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
    self._seen = list(itertools.product(settings.scales, flips))
    self._fusions = {
        x: forward.make_fusion(mesh, x, exponentials) for x in (False, True)
    }
    self._tiles = {}
    self._ways = {}

  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Groups images [N, 2] by the canvases of themselves and every scale."""
    native, self.multiple = plan_canvases(sizes, self.settings.max_canvases)
    self._tiles.clear()
    self._ways.clear()
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

    def try_out(number, core):
      tiles = self._make_tiles(variables, shapes, sizes, number, core)
      return self._prepare(variables, tiles, number, probabilities), tiles

    used, number, tiles = fitting.choose(
        try_out,
        shapes,
        most=self._at_once(len(sizes)),
        bound=bound,
        margin=self.settings.tile_margin,
        foresees=not self._slides,
        slack=1.0 if is_given else 1.25,  # A refusal names the least.
    )
    if used > bound and is_given:
      raise errors.UserError(
          f"{batching.images_of(number, tiles.largest)}: needs"
          f" {used / 1e9:.2g} GB of memory, more than memory_gb, which is"
          f" {bound / 1e9:g}; raise it, or lower {self._remedy}"
      )
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
    return tiling.Tiles(cores, boxes)

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
    for scale, _ in self._seen:
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

  def _views(self, image):
    """Returns the image resized, by scale."""
    return {
        scale: self._resized(image, scale) for scale in self.settings.scales
    }

  def _apply(self, variables, sizes, views, shapes, probabilities):
    """Predicts the pixels of image i in its first rows and columns."""
    tiles = self._tiles[shapes]
    whole = None
    for core in itertools.product(*tiles.cores):
      logits, ways = [], []
      for scale, flip in self._seen:
        axes = tiles.boxes[scale]
        shown = [view[scale] for view in views]
        places = [
            [
                axis.place(core[j], size[j], view.shape[j], flip and j == 1)
                for j, axis in enumerate(axes)
            ]
            for size, view in zip(sizes, shown, strict=True)
        ]
        inputs = map(self.put, self._inputs(shown, axes, places, flip))
        logits.append(self._run(self._network, variables, *inputs))
        ways.append(self._way_back((scale, flip), places))
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

  def _way_back(self, seen, places):
    """Returns the matrices from logits to pixels, on the devices.

    Those of a view of the last batch are still there, and mostly the same.
    """
    matrices = [
        [place.back for place in axis] for axis in zip(*places, strict=True)
    ]
    # Places are kept, so equal ones have the same matrix.
    kept, ways = self._ways.get(seen, (None, None))
    if kept is None or not all(
        len(old) == len(new) and all(map(operator.is_, old, new))
        for old, new in zip(kept, matrices, strict=True)
    ):
      ways = [self.put(np.stack(axis)) for axis in matrices]
      self._ways[seen] = (matrices, ways)
    return ways

  def _inputs(self, views, axes, places, flip):
    """Returns the boxes of a core in one view of a batch, and windows."""
    box_size = tuple(axis.box for axis in axes)
    boxes = np.empty((len(views), *box_size, 3), np.uint8)
    windows = []
    for box, view, at in zip(boxes, views, places, strict=True):
      corner = (view[:, ::-1] if flip else view)[
          tuple(
              slice(p.start, p.start + n)
              for p, n in zip(at, box_size, strict=True)
          )
      ]
      if corner.shape != box.shape:
        box[:] = self._pad_color
      box[: corner.shape[0], : corner.shape[1]] = corner
      if self._slides:
        starts = map(tiling.Axis.windows, axes, at, view.shape)
        windows.append(list(itertools.product(*starts)))
    if not self._slides:
      return [boxes]
    most = axes[0].num_windows * axes[1].num_windows
    starts = np.zeros((len(views), most, 2), np.int32)
    weights = np.zeros((len(views), most), np.float32)
    for i, found in enumerate(windows):
      starts[i, : len(found)] = found
      weights[i, : len(found)] = 1.0
    return [boxes, starts, weights]


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
