"""A trained network as one function from photographs to classes."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ctxseg_jax import experiment
from ctxseg_jax.evaluation import forward
from ctxseg_jax.evaluation import procedure
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.evaluation import tiling
from ctxseg_jax.models.resizing import resize_bilinear

Function = Callable[[jax.Array], dict[str, jax.Array]]


def in_float32(trained: experiment.Trained) -> experiment.Trained:
  """Returns a network that computes in float32, on one device.

  It has the parameters that evaluations use: their average, if there is one.
  Views are merged by their probabilities, also where evaluations do as
  PyTorch-Encoding.
  """
  settings = trained.run.settings
  if getattr(settings, "merges_exponentials", False):
    settings = dataclasses.replace(settings, merge="probabilities")
  section = trained.config["model"] | {"dtype": "float32"}
  model = experiment.build_model(section, trained.spec.num_classes)
  return dataclasses.replace(
      trained,
      run=dataclasses.replace(trained.run, model=model, settings=settings),
      mesh=jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",)),
      variables=jax.device_get(trained.variables),
  )


def make(trained: experiment.Trained) -> Function:
  """Returns what evaluations of the run do with images, as one function.

  Normalisation, windows, scales, mirroring and the way back to the images' own
  size are part of it; tiles are not: it takes the memory of whole images.

  Returns:
    A function of RGB images, uint8 [B, H, W, 3], all of one size. It returns
    float32 `"probabilities"` [B, H, W, C] and the most probable `"classes"`,
    uint8 (uint16 from 256 classes on) [B, H, W]; [B, C] and [B] if the network
    classifies images, which then have the size that `default_size` says.
  """
  run = trained.run
  settings = run.settings
  is_of_maps = isinstance(settings, procedure.Settings)
  slides = is_of_maps and settings.mode == "slide"
  window = settings.crop_size if slides else None
  network = forward.make_network(run.model, run.data.mean, run.data.std, window)
  pad_color = np.rint(run.data.mean).astype(np.float32)

  def logits_of(view):
    if not slides:
      return network(trained.variables, view)
    size = view.shape[1:3]
    pads = [(0, max(c - n, 0)) for c, n in zip(window, size, strict=True)]
    view = jnp.pad(view - pad_color, ((0, 0), *pads, (0, 0))) + pad_color
    starts = itertools.product(
        *map(tiling.window_starts, size, window, settings.steps)
    )
    starts = np.array(list(starts), np.int32)
    starts = jnp.broadcast_to(starts, (view.shape[0], *starts.shape))
    weights = jnp.ones(starts.shape[:2])
    logits = network(trained.variables, view, starts, weights)
    return logits[:, : size[0], : size[1]]

  def probabilities_of(images, scale, flip):
    size = images.shape[1:3]
    target = _seen_size(settings, size, scale)
    # Photographs are resized by this rule whatever the network's own.
    view = jnp.round(resize_bilinear(images, target, align_corners=False))
    logits = logits_of(view[:, :, ::-1] if flip else view)
    logits = logits[:, :, ::-1] if flip else logits
    align_corners = run.model.align_corners
    logits = resize_bilinear(logits, size, align_corners=align_corners)
    return jax.nn.softmax(logits)

  def predict(images):
    if is_of_maps:
      flips = (False, True) if settings.flip else (False,)
      views = list(itertools.product(settings.scales, flips))
      total = sum(probabilities_of(images, *view) for view in views)
      scores = total / len(views)
    else:
      scores = jax.nn.softmax(logits_of(images))
    classes, _ = forward.classes(scores, are_logits=False)
    return {"classes": classes, "probabilities": scores}

  return predict


def default_size(trained: experiment.Trained) -> tuple[int, int]:
  """Returns (H, W) of a training crop, brought to the size it is seen at."""
  size = tuple(trained.run.augmentation.crop_size)
  return _seen_size(trained.run.settings, size, 1.0)


def takes_any_size(settings: tasks.Settings) -> bool:
  """Returns whether what evaluations do is the same for every image size.

  Windows, scales and sides have other numbers for each.
  """
  is_of_maps = isinstance(settings, procedure.Settings)
  return is_of_maps and settings.mode == "whole" and not _resizes(settings)


def resizes_images(settings: tasks.Settings, size: Sequence[int]) -> bool:
  """Returns whether the network sees images of a size at another, too."""
  scales = getattr(settings, "scales", (1.0,))
  return any(_seen_size(settings, size, x) != tuple(size) for x in scales)


def _resizes(settings):
  return (settings.scales, settings.short_side, settings.long_side) != (
      (1.0,),
      None,
      None,
  )


def _seen_size(settings, size, scale):
  """Returns (H, W) at which images of a size are seen at a scale."""
  is_of_maps = isinstance(settings, procedure.Settings)
  if not is_of_maps or not _resizes(settings):  # It may be symbolic.
    return tuple(size)
  return settings.scaled_size(size, scale)
