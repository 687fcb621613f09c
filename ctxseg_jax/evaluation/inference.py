"""From images to class maps: whole images or windows, scales, flips.

Shapes are few and fixed. An image is padded at its right and bottom to a
*canvas* that other images share, and matrices per image map the logits of the
canvas to the pixels of the image, so that one compiled program serves every
image of a canvas, whatever its own size.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax.data import transforms
from ctxseg_jax.models.layers import normalize_images
from ctxseg_jax.models.layers import resize_matrix


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a class map is made.

  Attributes:
    mode: "whole" runs the network on the whole image, "slide" on windows.
    scales: Factors the image is resized by; the class probabilities of all
      are averaged.
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
  """

  mode: str = "whole"
  scales: tuple[float, ...] = (1.0,)
  short_side: int | None = None
  long_side: int | None = None
  flip: bool = False
  crop_size: tuple[int, int] | None = None
  stride: tuple[int, int] | None = None
  max_canvases: int = 8
  batch_size_per_device: int = 1

  def __post_init__(self):
    if self.mode not in ("whole", "slide"):
      raise ValueError(f"mode: expected 'whole' or 'slide', got {self.mode!r}")
    if not self.scales or min(self.scales) <= 0:
      raise ValueError(f"scales: expected positive factors, got {self.scales}")
    if self.mode == "slide" and self.crop_size is None:
      raise ValueError("mode 'slide' needs crop_size=(H, W)")
    for name in ("max_canvases", "batch_size_per_device"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}: expected at least 1")
    for name in ("short_side", "long_side"):
      value = getattr(self, name)
      if value is not None and not value >= 1:
        raise ValueError(f"{name}: expected at least 1 pixel, got {value}")

  def describe(self) -> str:
    """Says in a few words what stands beside an mIoU."""
    text = self.mode
    if self.mode == "slide":
      text += f" {self.crop_size[0]}x{self.crop_size[1]}"
    for name in ("short_side", "long_side"):
      if getattr(self, name) is not None:
        text += f", {name.replace('_', ' ')} {getattr(self, name)}"
    text += ", scales " + ",".join(f"{s:g}" for s in self.scales)
    return text + (", flip" if self.flip else "")

  def scaled_size(self, size: Sequence[int], scale: float) -> tuple[int, int]:
    """Returns (H, W) of an image at one of the scales, rounded, at least 1."""
    scale *= transforms.fit_scale(size, self.short_side, self.long_side)
    return tuple(max(1, int(round(float(n) * scale))) for n in size)


def plan_canvases(
    sizes: np.ndarray, max_canvases: int
) -> tuple[np.ndarray, int]:
  """Rounds image sizes up until few distinct ones are left.

  Args:
    sizes: (H, W) of every image, [N, 2].
    max_canvases: The most distinct canvases.

  Returns:
    The canvas of every image, [N, 2], and the multiple they were rounded up
    to: 1 (no padding at all) if there are few sizes already.
  """
  multiple = 1
  while True:
    canvases = -(-np.asarray(sizes) // multiple) * multiple
    if len(np.unique(canvases, axis=0)) <= max_canvases:
      return canvases, multiple
    multiple *= 2


def window_starts(length: int, crop: int, stride: int) -> list[int]:
  """Returns where windows start along one axis (mmsegmentation's rule).

  The last window is moved back to end with the image; an image shorter than
  the window has one.
  """
  count = max(length - crop + stride - 1, 0) // stride + 1
  return [max(min(i * stride, length - crop), 0) for i in range(count)]


class Predictor:
  """Runs a network over batches of images of one canvas.

  Args:
    model: The network.
    mesh: Mesh with one axis, over which images are spread.
    mean: Mean of the images' channels, 0 to 255; also the colour of padding.
    std: Standard deviation of the images' channels.
    settings: How class maps are made.
    align_corners: Convention for resizing logits, the model's own.
  """

  def __init__(
      self,
      model: nn.Module,
      mesh: jax.sharding.Mesh,
      *,
      mean: Sequence[float],
      std: Sequence[float],
      settings: Settings,
      align_corners: bool = False,
  ):
    self.settings = settings
    self.mesh = mesh
    self.model = model
    self.mean = tuple(mean)
    self._align_corners = align_corners
    self._views = [
        (scale, flip)
        for scale in settings.scales
        for flip in ((False, True) if settings.flip else (False,))
    ]
    # A single whole view at the image's own size needs neither resizing nor
    # averaging: the class map is the largest logit.
    self._direct = (
        settings.mode == "whole"
        and self._views == [(1.0, False)]
        and settings.short_side is None
        and settings.long_side is None
    )
    self._forward = _make_forward(model, mesh, mean, std, settings)

  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Groups images by canvas and says how large every padded shape is.

    Args:
      sizes: (H, W) of every image, [N, 2].

    Returns:
      Pairs of a key (the canvases of the image itself and of every scale)
      and the indices of the images that share it, in a fixed order.
    """
    limit = self.settings.max_canvases
    native, multiple = plan_canvases(sizes, limit)
    self.multiple = multiple
    per_scale = []
    for scale in self.settings.scales:
      scaled = np.array([self.settings.scaled_size(s, scale) for s in sizes])
      # Images of one canvas share the scaled canvas as well.
      canvas = np.zeros_like(native)
      for shape in np.unique(native, axis=0):
        members = np.all(native == shape, axis=1)
        canvas[members] = scaled[members].max(axis=0)
      if self.settings.mode == "slide":
        canvas = np.maximum(canvas, self.settings.crop_size)
      per_scale.append(canvas)
    groups = {}
    for i in range(len(sizes)):
      key = (tuple(map(int, native[i])),) + tuple(
          tuple(map(int, canvas[i])) for canvas in per_scale
      )
      groups.setdefault(key, []).append(i)
    return [(key, np.array(ids)) for key, ids in sorted(groups.items())]

  def predict(
      self,
      variables: Any,
      images: Sequence[np.ndarray],
      key: tuple,
      put: Callable[[np.ndarray], jax.Array],
      *,
      probabilities: bool = False,
  ) -> jax.Array:
    """Predicts the classes of images that share a canvas.

    Args:
      variables: Variables of the model, replicated.
      images: uint8 [h, w, 3] each; this process's share of the batch.
      key: Their key from `plan`.
      put: Places a host array of the local share on the devices, sharded.
      probabilities: Whether to return class probabilities instead.

    Returns:
      uint8 (uint16 from 256 classes on) [B, H, W] on the canvas, or float32
      [B, H, W, C]; the pixels of image i are its first h rows and w columns.
    """
    canvas, scaled_canvases = (
        key[0],
        dict(zip(self.settings.scales, key[1:], strict=True)),
    )
    if self._direct:
      batch = np.stack([self._pad(image, canvas) for image in images])
      out = self._forward["logits"](variables, put(batch))
      if probabilities:
        return self._forward["softmax"](out)
      return self._forward["argmax"](out)
    total = None
    for scale, flip in self._views:
      view = self._view(images, canvas, scaled_canvases[scale], scale, flip)
      out = self._forward["view"](variables, *map(put, view))
      total = out if total is None else self._forward["add"](total, out)
    if probabilities:
      return self._forward["scale"](total, 1.0 / len(self._views))
    return self._forward["argmax"](total)

  def compilations(self) -> int:
    """Returns how many shapes the network was compiled for."""
    names = ("logits",) if self._direct else ("view",)
    return sum(self._forward[name]._cache_size() for name in names)

  def _pad(self, image, canvas):
    out = np.empty((*canvas, 3), np.uint8)
    out[:] = np.rint(self.mean).astype(np.uint8)
    out[: image.shape[0], : image.shape[1]] = image
    return out

  def _view(self, images, canvas, scaled_canvas, scale, flip):
    """Returns one scale and flip of a batch, and the way back."""
    batch, rows, cols, scaled_images = [], [], [], []
    for image in images:
      size = image.shape[:2]
      target = self.settings.scaled_size(size, scale)
      if target != size:
        image = cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR)
      if flip:
        image = image[:, ::-1]
      scaled_images.append(image)
      batch.append(self._pad(image, scaled_canvas))
      back = [
          resize_matrix(n, m, align_corners=self._align_corners)
          for n, m in zip(size, target, strict=True)
      ]
      if flip:
        back[1] = back[1][:, ::-1]
      for matrices, matrix, n, m in zip(
          (rows, cols), back, canvas, scaled_canvas, strict=True
      ):
        full = np.zeros((n, m), np.float32)
        full[: matrix.shape[0], : matrix.shape[1]] = matrix
        matrices.append(full)
    windows = self._windows(scaled_images, scaled_canvas)
    return (np.stack(batch), np.stack(rows), np.stack(cols), *windows)

  def _windows(self, images, canvas):
    """Returns starts [B, n, 2] and weights [B, n] of the windows, or ()."""
    if self.settings.mode == "whole":
      return ()
    crop = self.settings.crop_size
    stride = self.settings.stride or tuple(max(1, n * 2 // 3) for n in crop)
    most = 1
    for n, c, s in zip(canvas, crop, stride, strict=True):
      most *= len(window_starts(n, c, s))
    starts = np.zeros((len(images), most, 2), np.int32)
    weights = np.zeros((len(images), most), np.float32)
    for i, image in enumerate(images):
      found = [
          (y, x)
          for y in window_starts(image.shape[0], crop[0], stride[0])
          for x in window_starts(image.shape[1], crop[1], stride[1])
      ]
      starts[i, : len(found)] = found
      weights[i, : len(found)] = 1.0
    return starts, weights


def _make_forward(model, mesh, mean, std, settings):
  """Compiles the device side: the network, and the small steps after it."""
  axis = mesh.axis_names[0]

  def network(variables, images):
    images = normalize_images(images, mean, std)
    return model.apply(variables, images, train=False)["logits"]

  def windows(variables, images, starts, weights):
    crop = settings.crop_size

    def cut(image, start):
      return jax.lax.dynamic_slice(image, (*start, 0), (*crop, 3))

    def paste(total, count, values, start, weight):
      at = (*start, 0)
      old = jax.lax.dynamic_slice(total, at, values.shape)
      total = jax.lax.dynamic_update_slice(total, old + weight * values, at)
      at = tuple(start)
      old = jax.lax.dynamic_slice(count, at, crop)
      count = jax.lax.dynamic_update_slice(count, old + weight, at)
      return total, count

    def visit(carry, step):
      start, weight = step
      values = network(variables, jax.vmap(cut)(images, start))
      return jax.vmap(paste)(*carry, values, start, weight), None

    # The zeros are made from the images so that they vary over devices too.
    zero = images[..., :1].astype(jnp.float32) * 0.0
    classes = jax.eval_shape(
        lambda: network(variables, jnp.zeros((1, *crop, 3), images.dtype))
    ).shape[-1]
    carry = (jnp.repeat(zero, classes, axis=-1), zero[..., 0])
    steps = (starts.swapaxes(0, 1), weights.swapaxes(0, 1))
    (total, count), _ = jax.lax.scan(visit, carry, steps)
    return total / jnp.maximum(count, 1.0)[..., None]

  def logits(variables, images, *where):
    if settings.mode == "whole":
      return network(variables, images)
    return windows(variables, images, *where)

  def view(variables, images, rows, cols, *where):
    kw = dict(precision=jax.lax.Precision.HIGHEST)
    x = logits(variables, images, *where)
    x = jnp.einsum("bHh,bhwc->bHwc", rows, x, **kw)
    x = jnp.einsum("bWw,bHwc->bHWc", cols, x, **kw)
    return jax.nn.softmax(x, axis=-1)

  def argmax(x):
    dtype = jnp.uint8 if x.shape[-1] <= 256 else jnp.uint16
    return jnp.argmax(x, axis=-1).astype(dtype)

  def sharded(function, replicated):
    def call(*args):
      specs = tuple(
          P() if i in replicated else P(axis) for i in range(len(args))
      )
      return jax.shard_map(
          function, mesh=mesh, in_specs=specs, out_specs=P(axis)
      )(*args)

    return jax.jit(call)

  return {
      "logits": sharded(logits, {0}),
      "view": sharded(view, {0}),
      "argmax": sharded(argmax, set()),
      "softmax": sharded(lambda x: jax.nn.softmax(x, axis=-1), set()),
      "add": sharded(jnp.add, set()),
      "scale": sharded(jnp.multiply, {1}),
  }
