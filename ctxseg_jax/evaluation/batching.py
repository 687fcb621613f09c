"""The loop that batches images, which every predictor shares.

Images are read and resized ahead by threads and grouped by the padded shape
they are given to the network in. A device works on batches of one size, so that
a prediction depends neither on the number of devices nor on that of processes.
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
import math
import os
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax import memory
from ctxseg_jax.evaluation import forward

# An example has at least `"image"`, uint8 [H, W, 3].
Load = Callable[[int], Mapping[str, Any]]

_MAX_THREADS = 8
_MAX_BYTES_AHEAD = 256 << 20


@dataclasses.dataclass(frozen=True)
class Batch:
  """What was predicted for images of one shape.

  Attributes:
    indices: Which images this process gave, [n].
    examples: What `load` returned for them.
    canvas: (H, W) that the images are padded or resized to.
    outputs: Predictions of all processes, padding included, on the devices; or
      those of this process, if they are probabilities and made in parts.
    share: Rows of `outputs` that belong to this process, with its padding.
    members: Images in the batch, over all processes: row i is of `members[i]`.
    confidences: The probabilities of predicted classes, as `outputs`, uint8 in
      `forward.CONFIDENCE_LEVELS`; None where `outputs` are probabilities.
  """

  indices: np.ndarray
  examples: list[Mapping[str, Any]]
  canvas: tuple[int, int]
  outputs: jax.Array | np.ndarray
  share: int
  members: np.ndarray
  confidences: jax.Array | None = None

  @property
  def num_images(self) -> int:
    return len(self.members)

  def results(self) -> list[np.ndarray]:
    """Returns the predictions of `examples`, maps at the images' own size."""
    rows = local_rows(self.outputs)
    if self.outputs.ndim <= 2:
      return list(rows[: len(self.examples)])
    sizes = [example["image"].shape for example in self.examples]
    return [row[:h, :w] for row, (h, w, _) in zip(rows, sizes, strict=False)]


def local_rows(array: jax.Array | np.ndarray) -> np.ndarray:
  """Returns what of a batch is this process's."""
  if isinstance(array, np.ndarray):
    return array
  shards = sorted(array.addressable_shards, key=lambda s: s.index[0].start or 0)
  return np.concatenate([np.asarray(shard.data) for shard in shards])


class Predictor(abc.ABC):
  """Runs a network over images of any sizes.

  Attributes:
    model: The network.
    mesh: Mesh with one axis, over which images are spread.
    mean: Mean of the images' channels, 0 to 255; also the colour of padding.
    std: Their standard deviation.
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
      **network_options: bool,
  ):
    self.model = model
    self.mesh = mesh
    self.mean = mean
    self.std = std
    self.settings = settings
    self.multiple = 1
    self._sharded = NamedSharding(mesh, P(mesh.axis_names[0]))
    self._network = forward.make(
        model, mesh, mean, std, window, **network_options
    )
    self._programs = {}
    self._fitted = (None, [])

  @abc.abstractmethod
  def plan(self, sizes: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    """Groups images by the shapes the network sees them in.

    Returns, for (H, W) of every image, [N, 2], pairs of a group's shapes, the
    first of which is that of its predictions, and the indices of its images.
    """

  @abc.abstractmethod
  def _views(self, image) -> Any:
    """Returns what the network is to see of an image; called on threads."""

  @abc.abstractmethod
  def _apply(self, variables, sizes, views, shapes, probabilities) -> Any:
    """Predicts a batch of one group, images of (H, W) in `sizes`.

    Returns probabilities, or classes and confidences; of all processes on the
    devices, or of this process alone.
    """

  @abc.abstractmethod
  def _fit(self, variables, shapes, sizes, probabilities) -> int:
    """Returns how many images of a group a device works on at once.

    `sizes` are those of the group's images. What is compiled for them is
    compiled here, and refused with a `UserError` if there is no memory for it.
    """

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
    variables = self._everywhere(variables)
    processes = sorted({d.process_index for d in self.mesh.devices.flat})
    rank = processes.index(jax.process_index())
    batches = []
    for shapes, members, per_device in self._fit_all(
        variables, sizes, probabilities
    ):
      # As the group says, not the devices: see the top of this file.
      total = per_device * self.mesh.size
      batches += [
          (shapes, members[at : at + total], total // len(processes))
          for at in range(0, len(members), total)
      ]
    own = [
        members[rank * share : (rank + 1) * share]
        for _, members, share in batches
    ]
    order = (int(i) for members in own for i in members)
    pixels = int(sizes.prod(axis=1).max(initial=0))
    viewed = [sum(map(math.prod, shapes[1:])) for shapes, *_ in batches]
    # Views of large images are made when they are needed.
    in_time = 3 * max(viewed, default=0) <= _MAX_BYTES_AHEAD // 4
    if in_time:
      pixels = max(pixels, *viewed, 0)

    def read(i):
      example = load(i)
      return example, self._views(example["image"]) if in_time else None

    with contextlib.closing(load_ahead(read, order, 3 * pixels)) as loaded:
      for (shapes, members, share), indices in zip(batches, own, strict=True):
        examples, views = [], []
        for _ in indices:
          example, view = next(loaded)
          examples.append(example)
          views.append(view if in_time else self._views(example["image"]))
        shown = [example["image"].shape[:2] for example in examples]
        if missing := share - len(views):
          # Any image will do to fill the batch: nobody looks at the result.
          size = tuple(sizes[members[0]].tolist())
          shown += [size] * missing
          views += [self._views(np.zeros((*size, 3), np.uint8))] * missing
        outputs = self._apply(variables, shown, views, shapes, probabilities)
        confidences = None
        if not probabilities:
          outputs, confidences = outputs
        yield Batch(
            indices, examples, shapes[0], outputs, share, members, confidences
        )

  def _fit_all(self, variables, sizes, probabilities):
    """Returns the groups of `plan`, each with what a device works on at once.

    Calls with images of the same sizes, one after the other, share them.
    """
    given = (_signature(variables), sizes.shape, sizes.tobytes(), probabilities)
    if given != self._fitted[0]:
      self._fitted = (None, [])
      groups = [
          (
              shapes,
              members,
              self._fit(variables, shapes, sizes[members], probabilities),
          )
          for shapes, members in self.plan(sizes)
      ]
      self._fitted = (given, groups)
    return self._fitted[1]

  def _everywhere(self, variables):
    """Returns variables that every device has."""
    sharding = NamedSharding(self.mesh, P())
    leaves = jax.tree.leaves(variables)
    # It takes milliseconds to find that hundreds of arrays are there already.
    if all(getattr(x, "sharding", None) == sharding for x in leaves):
      return variables
    return jax.device_put(variables, sharding)

  def put(self, local: np.ndarray) -> jax.Array:
    """Places this process's rows of a batch on the devices."""
    return jax.make_array_from_process_local_data(
        self._sharded, np.ascontiguousarray(local)
    )

  def tiled(self) -> list[str]:
    """Returns what of the last plan is predicted in tiles, and in which."""
    return []

  def _at_once(self, num_images: int) -> int:
    """Returns how many images a device takes if there is memory for them.

    Few images make a small batch, of a power of two, so that there are not many
    sizes to compile.
    """
    size = self.settings.batch_size_per_device
    return min(size, 1 << (num_images - 1).bit_length())

  def _abstract(self, per_device, *shape, dtype=np.float32):
    """Returns what stands for an array of a batch when it is compiled."""
    shape = (per_device * self.mesh.size, *shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=self._sharded)

  def _compile(self, function, *arguments, **advice: str):
    """Returns the program of a function for arguments like these."""
    key = (function, _signature(arguments))
    if key not in self._programs:
      devices = list(self.mesh.local_devices)
      self._programs[key] = memory.compile_within(
          function, *arguments, devices=devices, **advice
      )
    return self._programs[key]

  def _run(self, function, *arguments) -> jax.Array:
    """Runs a function, on a batch, that was compiled for such arguments."""
    return self._compile(function, *arguments)(*arguments)

  def compilations(self) -> int:
    """Returns how many shapes the network was compiled for."""
    return sum(key[0] is self._network for key in self._programs)


def _signature(arrays):
  """Returns what a program that is compiled for such arrays depends on."""
  leaves, structure = jax.tree.flatten(arrays)
  return structure, *((x.shape, x.dtype) for x in leaves)


def images_of(number: int, size: Sequence[int]) -> str:
  """Returns in words what is predicted at once, for messages."""
  images = "1 image" if number == 1 else f"{number:,} images"
  return f"predicting {images} of {size[0]}x{size[1]} pixels per device"


def load_ahead(
    load: Callable[[int], Any], order: Iterable[int], num_bytes: int = 0
) -> Iterator:
  """Yields `load(i)` of every index in order, read ahead by a few threads.

  The fewer, the more `num_bytes` the largest takes.
  """
  threads = min(_MAX_THREADS, os.cpu_count() or 1)
  threads = max(1, min(threads, _MAX_BYTES_AHEAD // (4 * max(num_bytes, 1))))
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
