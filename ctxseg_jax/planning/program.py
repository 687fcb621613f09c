"""The training step of a config, compiled for devices that may not be there."""

from collections.abc import Sequence
import dataclasses
import importlib.util
import os
import time
from typing import Any

import jax
from jax.experimental import topologies
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.models import macs
from ctxseg_jax.planning import chips
from ctxseg_jax.planning import program_text
from ctxseg_jax.training import run as run_lib
from ctxseg_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled step; all figures are of one device.

  Attributes:
    images: Images of a batch.
    flops: Operations of convolutions and matrix products, two for a
      multiply-accumulate, as traced: forward, backward and what is computed
      again; not those of resizing.
    num_bytes: What it reads and writes of the device's memory.
    fast_bytes: What it reads and writes of the device's fast memory.
    arguments: Bytes of the state and the batch.
    temporaries: Bytes that are held in between.
    collectives: The (runs, bytes of one) of collectives, by kind.
    batch_norms: Batch norms of the network.
    xla_flops: XLA's own count, where the body of a loop counts once.
    xla_bytes: The same of bytes, of both memories.
    instructions: What it runs.
    compile_seconds: How long it took to compile.
  """

  images: int
  flops: float
  num_bytes: float
  fast_bytes: float
  arguments: int
  temporaries: int
  collectives: dict[str, list[tuple[int, int]]]
  batch_norms: int
  xla_flops: float
  xla_bytes: float
  instructions: list[program_text.Instruction]
  compile_seconds: float

  @property
  def memory(self) -> int:
    """The bytes that a device needs; the new state takes the old one's."""
    return self.arguments + self.temporaries


class TooLargeError(errors.UserError):
  """The compiler found no way to fit the step into a device's memory."""


def tpu_devices(where: chips.Slice) -> list[jax.Device]:
  """Returns the chips of a slice, as the compiler knows them.

  Raises:
    UserError: The compiler is not installed, or knows no such slice.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise errors.UserError(
        "--topology: the TPU compiler is not installed; pip install -e"
        ' ".[tpu]", in an environment of its own where others hold a GPU'
    )
  # Without it the compiler asks a cloud machine's metadata server first.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  options = {}
  if where.chip.config:
    options["chip_config_name"] = where.chip.config
  try:
    found = topologies.get_topology_desc(
        topology_name=where.name, platform="tpu", **options
    )
  except (RuntimeError, ValueError, NotImplementedError) as e:
    raise errors.UserError(
        f"--topology: the TPU compiler refuses {where.name}:"
        f" {str(e).splitlines()[0]}; see the sizes that the maker offers"
    ) from e
  return found.devices


def lower(
    run: run_lib.Run, devices: Sequence[jax.Device], batch_size: int
) -> tuple[jax.stages.Lowered, tuple[Any, ...], float]:
  """Traces the step of a run.

  Args:
    run: A parsed config.
    devices: What it is compiled for.
    batch_size: Images of a batch, over all devices.

  Returns:
    The step, ready to compile; the shapes of its arguments, the state, the
    batch and the random key; the operations of one device, see `Program`.
  """
  mesh = jax.sharding.Mesh(np.array(devices), (step_lib.AXIS,))
  tx, _ = run.optimizer.make(run.total_steps)
  step = run.train_step(tx, mesh)
  size = run.augmentation.crop_size
  state, key = jax.eval_shape(
      lambda: (run.init_state(tx, jax.random.key(0)), jax.random.key(0))
  )
  batch = {
      "image": jax.ShapeDtypeStruct((batch_size, *size, 3), jnp.uint8),
      "label": jax.ShapeDtypeStruct(
          (batch_size, *run.spec.label_shape(size)), jnp.uint8
      ),
  }

  def shape(x, *axes):
    sharding = NamedSharding(mesh, P(*axes))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  arguments = (
      jax.tree.map(shape, state),
      jax.tree.map(lambda x: shape(x, step_lib.AXIS), batch),
      shape(key),
  )
  lowered = step.lower(*arguments)
  # After it: counting leaves names in what it traces, and traces are kept.
  counts, _, _ = macs.count(step, *arguments)
  products = sum(n for (_, kind), n in counts.items() if kind in macs.PRODUCTS)
  return lowered, arguments, 2 * products / mesh.size


def compile_step(
    run: run_lib.Run, devices: Sequence[jax.Device], batch_size: int
) -> tuple[jax.stages.Compiled, tuple[Any, ...], Program]:
  """Compiles the step of a run, and reads what it costs.

  Returns:
    The compiled step, the shapes of its arguments, and its costs.

  Raises:
    TooLargeError: It does not fit, and the compiler says so.
  """
  lowered, arguments, flops = lower(run, devices, batch_size)
  start = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    _, found, reason = str(e).partition("RESOURCE_EXHAUSTED: ")
    if not found:
      raise
    raise TooLargeError(reason.splitlines()[0]) from e
  seconds = time.perf_counter() - start
  usage = compiled.memory_analysis()
  cost = compiled.cost_analysis()
  found = program_text.instructions(compiled.as_text())
  statistics = jax.tree_util.tree_leaves_with_path(
      arguments[0].model_state.get("batch_stats", {})
  )
  program = Program(
      images=batch_size // len(devices),
      flops=flops,
      num_bytes=sum(x.repeats * x.num_bytes for x in found),
      fast_bytes=sum(x.repeats * x.fast_bytes for x in found),
      arguments=usage.argument_size_in_bytes,
      temporaries=usage.temp_size_in_bytes,
      collectives=program_text.collectives(found),
      batch_norms=sum(path[-1].key == "mean" for path, _ in statistics),
      xla_flops=cost["flops"],
      xla_bytes=cost["bytes accessed"],
      instructions=found,
      compile_seconds=seconds,
  )
  return compiled, arguments, program
