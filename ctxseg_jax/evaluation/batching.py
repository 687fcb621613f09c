"""The loop that batches images, which every predictor shares.

Images are read ahead by threads and grouped by the padded shape they are given
to the network in. A device works on batches of one size, so that a prediction
depends neither on the number of devices nor on that of processes.
"""

import abc
import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import contextlib
import dataclasses
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax import memory
from ctxseg_jax.evaluation import forward

# An example has at least `"image"`, uint8 [H, W, 3].
Load = Callable[[int], Mapping[str, Any]]

CONFIDENCE_LEVELS = 256  # The highest confidence is the last of them.

_MAX_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Batch:
  """What was predicted for images of one shape.

  Attributes:
    indices: Which images this process gave, [n].
    examples: What `load` returned for them.
    canvas: (H, W) that the images are padded or resized to.
    outputs: Predictions of all processes, padding included, on the devices.
    share: Rows of `outputs` that belong to this process, with its padding.
    members: Images in the batch, over all processes: row i is of `members[i]`.
    confidences: The probabilities of predicted classes, as `outputs`, uint8 in
      `CONFIDENCE_LEVELS`; None where `outputs` are probabilities.
  """

  indices: np.ndarray
  examples: list[Mapping[str, Any]]
  canvas: tuple[int, int]
  outputs: jax.Array
  share: int
  members: np.ndarray
  confidences: jax.Array | None = None

  @property
  def num_images(self) -> int:
    return len(self.members)

  def results(self) -> list[np.ndarray]:
    """Returns the predictions of `examples`, maps at the images' own size."""
    shards = sorted(
        self.outputs.addressable_shards, key=lambda s: s.index[0].start or 0
    )
    rows = np.concatenate([np.asarray(shard.data) for shard in shards])
    if self.outputs.ndim <= 2:
      return list(rows[: len(self.examples)])
    sizes = [example["image"].shape for example in self.examples]
    return [row[:h, :w] for row, (h, w, _) in zip(rows, sizes, strict=False)]


class Predictor(abc.ABC):
  """Runs a network over images of any sizes.

  Attributes:
    model: The network.
    mesh: Mesh with one axis, over which images are spread.
    mean: Mean of the images' channels, 0 to 255; also the colour of padding.
    settings: How predictions are made; has `batch_size_per_device`.
    multiple: What the sides of padded shapes are multiples of, in the last
      plan; 1 is no padding.
  """

  def __init__(
      self,
      model: nn.Module,
      mesh: jax.sharding.Mesh,
      *,
      mean: Sequence[float],
      std: Sequence[float],
      settings: Any,
      window: tuple[int, int] | None = None,
  ):
    self.model = model
    self.mesh = mesh
    self.mean = mean
    self.settings = settings
    self.multiple = 1
    self._sharded = NamedSharding(mesh, P(mesh.axis_names[0]))
    self._network = forward.make(model, mesh, mean, std, window)
    self._classes = jax.jit(
        _classes, static_argnums=1, out_shardings=self._sharded
    )
    self._gives_logits = True  # As opposed to probabilities; see `_apply`.
    self._programs = {}

  @abc.abstractmethod
  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Groups images by the shapes the network sees them in.

    Returns, for (H, W) of every image, [N, 2], pairs of a group's shapes, the
    first of which is that of its predictions, and the indices of its images.
    """

  @abc.abstractmethod
  def _apply(self, variables, images, shapes, probabilities) -> jax.Array:
    """Returns class probabilities of a batch, or logits if they do."""

  @abc.abstractmethod
  def _input_bytes(self, shapes) -> int:
    """Returns the size of what the devices are given for one image."""

  def predict(
      self,
      variables: Any,
      images: Sequence[np.ndarray],
      *,
      probabilities: bool = False,
  ) -> list[np.ndarray]:
    """Predicts RGB images, uint8 [H, W, 3] each, of any sizes.

    Returns in their order classes, uint8 (uint16 from 256 classes on) [H, W]
    or, of whole images, []; or the probabilities of all classes, float32
    [H, W, C] or [C].

    Raises:
      ValueError: Something else than such images, or a mesh with devices of
        other processes.
      UserError: There is not enough memory.
    """
    if len({d.process_index for d in self.mesh.devices.flat}) > 1:
      raise ValueError(
          "the mesh has devices of other processes; use jax.local_devices()"
      )
    for i, image in enumerate(images):
      found, shape = getattr(image, "dtype", type(image)), np.shape(image)
      if found != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(
            f"image {i}: expected uint8 [H, W, 3], got {found} {list(shape)}"
        )
    results = [None] * len(images)
    sizes = np.array([image.shape[:2] for image in images]).reshape(-1, 2)
    examples = [{"image": np.asarray(image)} for image in images]
    for batch in self.batches(
        variables, sizes, examples.__getitem__, probabilities=probabilities
    ):
      for i, result in zip(batch.indices, batch.results(), strict=True):
        results[i] = result
    return results

  def batches(
      self,
      variables: Any,
      sizes: np.ndarray,
      load: Load,
      *,
      probabilities: bool = False,
  ) -> Iterator[Batch]:
    """Predicts images batch by batch; all processes of the mesh call it alike.

    Args:
      variables: Variables of the model, `{"params": ..., ...}`.
      sizes: (H, W) of every image, [N, 2].
      load: Returns the example of an index; called on threads, for the images
        of this process alone.
      probabilities: Whether to predict those of all classes instead of classes.

    Raises:
      UserError: There is not enough memory.
    """
    variables = jax.device_put(variables, NamedSharding(self.mesh, P()))
    processes = sorted({d.process_index for d in self.mesh.devices.flat})
    batch_size = self.settings.batch_size_per_device * self.mesh.size
    share = batch_size // len(processes)
    first = processes.index(jax.process_index()) * share
    groups = self.plan(sizes)
    for shapes, _ in groups:
      num_bytes = share * self._input_bytes(shapes)
      memory.require(num_bytes, **self._advice(shapes))
    batches = [
        (shapes, members[at : at + batch_size])
        for shapes, members in groups
        for at in range(0, len(members), batch_size)
    ]
    own = [members[first : first + share] for _, members in batches]
    order = (int(i) for members in own for i in members)
    with contextlib.closing(load_ahead(load, order)) as loaded:
      for (shapes, members), indices in zip(batches, own, strict=True):
        examples = [next(loaded) for _ in indices]
        images = [example["image"] for example in examples]
        # Any image will do to fill the batch: nobody looks at the result.
        images += [np.zeros((1, 1, 3), np.uint8)] * (share - len(images))
        outputs = self._apply(variables, images, shapes, probabilities)
        confidences = None
        if not probabilities:
          outputs, confidences = self._classes(outputs, self._gives_logits)
        yield Batch(
            indices, examples, shapes[0], outputs, share, members, confidences
        )

  def put(self, local: np.ndarray) -> jax.Array:
    """Places this process's rows of a batch on the devices."""
    return jax.make_array_from_process_local_data(
        self._sharded, np.ascontiguousarray(local)
    )

  def compilations(self) -> int:
    """Returns how many shapes the network was compiled for."""
    return len(self._programs)

  def _run(self, variables, shapes, *inputs: np.ndarray) -> jax.Array:
    """Runs the network on one batch."""
    arguments = (variables, *map(self.put, inputs))
    leaves, structure = jax.tree.flatten(arguments)
    key = (structure, *((x.shape, x.dtype) for x in leaves))
    if key not in self._programs:
      devices = list(self.mesh.local_devices)
      self._programs[key] = memory.compile_within(
          self._network, *arguments, devices=devices, **self._advice(shapes)
      )
    return self._programs[key](*arguments)

  def _advice(self, shapes) -> dict[str, str]:
    """Returns what needs memory, and what to do if there is too little."""
    sizes = " and ".join(f"{h}x{w}" for h, w in dict.fromkeys(shapes))
    size = self.settings.batch_size_per_device
    images = "1 image" if size == 1 else f"{size:,} images"
    return dict(
        what=f"predicting {images} of {sizes} pixels per device",
        remedy="lower eval.batch_size_per_device, the scales or the sizes",
    )


def _classes(scores, are_logits):
  """Returns the best classes, and the levels of their probabilities."""
  dtype = np.uint8 if scores.shape[-1] <= 256 else np.uint16
  best = scores.max(axis=-1)
  if are_logits:
    best = 1.0 / jnp.sum(jnp.exp(scores - best[..., None]), axis=-1)
  levels = jnp.clip(best * CONFIDENCE_LEVELS, 0, CONFIDENCE_LEVELS - 1)
  return scores.argmax(axis=-1).astype(dtype), levels.astype(np.uint8)


def load_ahead(load: Callable[[int], Any], order: Iterable[int]) -> Iterator:
  """Yields `load(i)` of every index in order, read ahead by a few threads."""
  threads = min(_MAX_THREADS, os.cpu_count() or 1)
  pool = futures.ThreadPoolExecutor(threads)
  pending = collections.deque()
  try:
    for i in order:
      pending.append(pool.submit(load, i))
      if len(pending) > 2 * threads:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
