"""What the context head of a network sees in an image."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from absl import logging
import cv2
import flax
import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import memory
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import context_panels
from ctxseg_jax.evaluation import segmentation
from ctxseg_jax.models import network
from ctxseg_jax.models.layers import normalize_images

# An image is not made smaller than this to fit in the memory.
_LEAST = 64
# One that does not fit is made to have fewer pixels than so many.
_MOST_PIXELS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Explanation:
  """What a context head sees in an image.

  Attributes:
    head: The name of the head.
    image: The image as the network saw it, RGB, uint8 [H, W, 3].
    prediction: The classes of its pixels, [H, W]; beyond the photograph the
      largest number of its dtype.
    place: (y, x) of the chosen point, as fractions of its height and width.
    point: (x, y) of the point in pixels of the photograph.
    arrays: What the head computed, float32, by module and name, such as
      `"encoding/assignments"`; see docs/evaluation.md.
    panels: What of it the picture shows.
    notes: What was done to the photograph, in words.
  """

  head: str
  image: np.ndarray
  prediction: np.ndarray
  place: tuple[float, float]
  point: tuple[int, int]
  arrays: dict[str, np.ndarray]
  panels: list[context_panels.Panel]
  notes: list[str]


def parse_point(text: str | None) -> tuple[int, int] | None:
  """Returns (x, y) of the text `x,y`; None is None.

  Raises:
    UserError: It is no such text.
  """
  if text is None:
    return None
  try:
    x, y = map(int, text.split(","))
  except ValueError:
    raise errors.UserError(
        f"--point: expected x,y in pixels, as 120,80, got {text!r}"
    ) from None
  return x, y


def check_point(
    point: tuple[int, int] | None, size: Sequence[int], what: str
) -> tuple[int, int]:
  """Returns a point (x, y) of an image, (H, W) = `size`; None is the centre.

  Raises:
    UserError: The point is outside; `what` names the image.
  """
  height, width = (int(n) for n in size)
  if point is None:
    return width // 2, height // 2
  x, y = point
  if not (0 <= x < width and 0 <= y < height):
    raise errors.UserError(
        f"--point: {x},{y} is outside {what}, which is {width} wide and"
        f" {height} high; expected x from 0 to {width - 1} and y from 0 to"
        f" {height - 1}"
    )
  return int(x), int(y)


class Explainer:
  """Shows what the context head of a network sees.

  Args:
    predictor: Makes class maps. The head is shown what the predictor shows it:
      the whole image at its scale nearest to 1, or a window around the point;
      what would be predicted in tiles is made smaller, as a tile is no context.
    variables: Variables of the network.
    spec: The data set.

  Raises:
    UserError: The head has no context to show.
  """

  def __init__(
      self,
      predictor: segmentation.Predictor,
      variables: Any,
      spec: spec_lib.DatasetSpec,
  ):
    self._predictor = predictor
    self._name = context_panels.check(predictor.model.head)
    self._variables = variables
    self._spec = spec
    self._network = jax.jit(self._run)
    self._programs = {}

  def __call__(
      self,
      image: np.ndarray,
      point: tuple[int, int] | None = None,
      prediction: np.ndarray | None = None,
  ) -> Explanation:
    """Explains an image, RGB, uint8 [H, W, 3].

    Args:
      image: The image.
      point: (x, y) in pixels, for what has a point of view; None is the centre.
      prediction: Its classes [H, W], where they are known.

    Raises:
      UserError: The point is outside, or there is not enough memory.
    """
    if prediction is None:
      (prediction,) = self._predictor.predict(self._variables, [image])
    point = check_point(point, image.shape[:2], "the image")
    place = tuple(
        (i + 0.5) / n for i, n in zip(point[::-1], image.shape, strict=False)
    )
    image, prediction, place, program, notes = self._view(
        image, prediction, place
    )
    arrays = jax.tree.map(
        lambda x: np.asarray(x, np.float32),
        program(self._variables, image[None]),
    )
    head = self._predictor.model.head
    seen = context_panels.Seen(head, arrays, place, self._spec.class_names)
    panels = context_panels.make(seen)
    return Explanation(
        self._name, image, prediction, place, point, arrays, panels, notes
    )

  def _view(self, image, prediction, place):
    """Returns what of an image the network sees, with its program."""
    settings = self._predictor.settings
    native = image.shape[:2]
    scale = min(settings.scales, key=lambda scale: abs(scale - 1))
    size = settings.scaled_size(native, scale)
    slides = settings.mode == "slide"
    shown = tuple(settings.crop_size) if slides else size
    fitting, program = self._fit(shown)
    reduced = fitting != shown
    size = size if slides else fitting
    notes = []
    if size != native:
      notes.append(
          "at {1}x{0} instead of {3}x{2} pixels".format(*size, *native)
      )
      notes[-1] += ", to stay within memory_gb" if reduced else ""
    # As predictions are resized, but where much is lost.
    smooth = cv2.INTER_AREA if reduced else cv2.INTER_LINEAR
    image = _resize(image, size, smooth)
    prediction = _resize(prediction, size, cv2.INTER_NEAREST)
    if slides:
      notes.append("in a window of {1}x{0} around the point".format(*shown))
      pad = np.rint(self._predictor.mean).astype(np.uint8)
      image, prediction, place = _cut(image, prediction, place, shown, pad)
    return image, prediction, place, program, notes

  def _run(self, variables, images):
    """Returns what the head exposes, and its vectors, of the first image."""
    predictor, model = self._predictor, self._predictor.model
    images = normalize_images(images, predictor.mean, predictor.std)
    out, state = model.apply(
        variables,
        images,
        train=False,
        upsample=False,
        mutable=["intermediates"],
    )
    exposed = flax.traverse_util.flatten_dict(
        state["intermediates"]["head"], sep="/"
    )
    # A network that fuses scales calls its head for each.
    call = model.scales.index(1.0) if model.scales else 0
    arrays = {name: x[call][0] for name, x in exposed.items()}
    prefix = network.scale_name(1.0, "") if model.scales else ""
    for name, x in out.items():
      if name.startswith(prefix) and x.ndim == 2:
        arrays[name.removeprefix(prefix)] = x[0]
    return arrays

  def _fit(self, size):
    """Returns the largest size within the memory, and its program."""
    bound, is_given = self._predictor.bound()
    wanted = size
    while True:
      try:
        program = self._compile(size)
        used = memory.program_bytes(program) or 0
      except errors.UserError:  # More than there is at all.
        if max(size) <= _LEAST:
          raise
        used = 4 * bound
      smallest = max(size) <= _LEAST or self._predictor.settings.mode == "slide"
      if used <= bound or (smallest and not is_given):
        break
      if smallest:
        raise errors.UserError(
            f"--explain: {size[0]}x{size[1]} pixels need {used / 1e9:.2g} GB of"
            f" memory, more than memory_gb, which is {bound / 1e9:g}; raise it"
        )
      # Attention takes time by the square of the pixels.
      fraction = min(bound / used, _MOST_PIXELS / math.prod(size))
      factor = max(0.97 * math.sqrt(fraction), _LEAST / max(size))
      size = tuple(max(1, int(n * factor)) for n in size)
    if size != wanted:
      logging.info(
          "To show what its context head sees of an image of %dx%d pixels in"
          " %.2g GB (memory_gb), the network sees it at %dx%d.",
          *wanted,
          bound / 1e9,
          *size,
      )
    return size, program

  def _compile(self, size):
    if size not in self._programs:
      self._programs[size] = memory.compile_within(
          self._network,
          self._variables,
          jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8),
          devices=list(self._predictor.mesh.local_devices),
          what=f"explaining an image of {size[0]}x{size[1]} pixels",
          remedy="make it smaller",
      )
    return self._programs[size]


def _resize(array, size, interpolation):
  if array.shape[:2] == tuple(size):
    return array
  return cv2.resize(array, size[::-1], interpolation=interpolation)


def _cut(image, prediction, place, window, pad):
  """Returns the window around a point, and where the point is in it.

  A smaller image is in its first rows and columns.
  """
  corner = tuple(
      slice(start, start + n)
      for start, n in (
          (min(max(int(p * m) - n // 2, 0), max(m - n, 0)), n)
          for p, m, n in zip(place, image.shape, window, strict=False)
      )
  )
  place = tuple(
      (p * m - at.start) / n
      for p, m, at, n in zip(place, image.shape, corner, window, strict=False)
  )
  canvas = np.empty((*window, 3), np.uint8)
  canvas[:] = pad
  classes = np.full(window, np.iinfo(prediction.dtype).max, prediction.dtype)
  part = image[corner]
  inside = tuple(map(slice, part.shape[:2]))
  canvas[inside] = part
  classes[inside] = prediction[corner]
  return canvas, classes, place
