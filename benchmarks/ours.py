"""Our side of a comparison: the step of `train.py` on a batch that stays."""

from collections.abc import Mapping
import functools
import time
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained.formats import weight_files
from ctxseg_jax.pretrained.sources import naming
from ctxseg_jax.training import run as run_lib
from ctxseg_jax.training import step as step_lib

# The names that a peer's tensors have, by the source of its network.
_NAMES = {"mmsegmentation": "mmseg", "torchvision": "torchvision"}


def make_batch(run: run_lib.Run, seed: int = 0) -> dict[str, np.ndarray]:
  """Returns noise as images, and labels in squares, a tenth of them ignored."""
  rng = np.random.default_rng(seed)
  height, width = run.augmentation.crop_size
  images = rng.integers(
      0, 256, (run.batch_size, height, width, 3), dtype=np.uint8
  )
  cells = (run.batch_size, -(-height // 16), -(-width // 16))
  labels = rng.integers(0, run.spec.num_classes, cells)
  labels = np.where(rng.random(cells) < 0.1, run.spec.ignore_label, labels)
  labels = labels.repeat(16, 1).repeat(16, 2)[:, :height, :width]
  return {"image": images, "label": labels.astype(np.uint8)}


class Side:
  """A network that is trained on one batch.

  Attributes:
    parameters: Their number.
    compile_seconds: What tracing and compiling the step took, or finding it
      in the cache; 0 before the first step.
  """

  compile_seconds = 0.0

  def __init__(self, run: run_lib.Run, weights: tuple[str, str] | None = None):
    """Takes the weights of a peer's source and file, or initial ones."""
    self.run = run
    self.mesh = step_lib.make_mesh()
    self._tx, _ = run.optimizer.make(run.total_steps)

    def initial_state():
      return run.init_state(self._tx, jax.random.key(0))

    if weights is None:
      self._state = jax.jit(initial_state)()
    else:
      state = jax.eval_shape(initial_state)
      arrays = _read(*weights, run.model, loading.flatten(state))
      self._state = loading.with_variables(state, arrays)
    params = jax.tree.leaves(self._state.params)
    self.parameters = sum(x.size for x in params)

  @functools.cached_property
  def variables(self) -> dict[str, Any]:
    """The variables on the devices, for predictions."""
    return jax.device_put(self._state.variables, NamedSharding(self.mesh, P()))

  @functools.cached_property
  def _arguments(self):
    """The state, a batch and a key on the devices."""
    state = self._state.replace(
        step=np.zeros((), np.int32),
        opt_state=jax.jit(self._tx.init)(self._state.params),
    )
    everywhere = NamedSharding(self.mesh, P())
    spread = NamedSharding(self.mesh, P(step_lib.AXIS))
    return [
        jax.device_put(state, everywhere),
        jax.device_put(make_batch(self.run), spread),
        jax.device_put(jax.random.key(0), everywhere),
    ]

  @functools.cached_property
  def _program(self):
    step = self.run.train_step(self._tx, self.mesh)
    start = time.perf_counter()
    program = step.lower(*self._arguments).compile()
    self.compile_seconds = time.perf_counter() - start
    return program

  def train(self, steps: int) -> dict[str, float]:
    """Returns the seconds that so many steps took.

    Of the last one there are the loss and the norm of its gradient.
    """
    arguments, program = self._arguments, self._program
    start = time.perf_counter()
    for _ in range(steps):
      arguments[0], scalars = program(*arguments)
    jax.block_until_ready(arguments[0])
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "loss": float(scalars["loss/total"]),
        "grad_norm": float(scalars["grad_norm"]),
    }

  def cost(self) -> Mapping[str, Any]:
    """Returns operations and bytes of the compiled step, as XLA counts."""
    cost = self._program.cost_analysis()
    memory = self._program.memory_analysis()
    return {
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "temporary_bytes": memory.temp_size_in_bytes,
    }

  def peak_bytes(self) -> int | None:
    """Returns the most memory so far of an accelerator; None of a CPU."""
    stats = self.mesh.devices.flat[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def _read(source, weights, model, template):
  """Returns our variables of a file that a peer wrote."""
  if source in _NAMES:
    found = loading.InitFrom(_NAMES[source], weights, strict=True)
    return loading.load(found, model, template, heads="all").arrays
  # Of plain networks modules are called as ours.
  tensors, _ = weight_files.read(weights)
  theirs = {"kernel": "weight", "scale": "weight"}
  theirs |= {"mean": "running_mean", "var": "running_var"}
  arrays = {}
  for path, leaf in template.items():
    _, *modules, name = path.split("/")
    own = ".".join((*modules, name))
    if own not in tensors:
      own = ".".join((*modules, theirs[name]))
    layout = naming.LAYOUTS["linear" if name == "kernel" else "same"]
    arrays[path] = np.ascontiguousarray(layout(tensors[own], leaf.shape))
  return arrays
