"""Compiles training steps for TPU pods, on a machine without a TPU.

  pip install -e ".[tpu]"
  python -m benchmarks.tpu_compile --config configs/quickstart.py \
      --topologies v5e:2x2,v5e:16x16

Prints per topology: seconds to compile, collectives of the step, and per chip
the floating-point operations, bytes accessed, temporaries and arguments. The
step is that of `train.py`, with the config's batch per chip of the smallest
topology kept on the others, so that figures per chip compare.
"""

import collections
import json
import os
import re
import time
from typing import Any

from absl import flags

from ctxseg_jax import commands


def count_collectives(text: str) -> dict[str, int]:
  """Counts the collectives of a compiled program by kind."""
  kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
  found = re.findall(rf"= [^\n]*?\b({kinds})(?:-start)?\(", text)
  return dict(collections.Counter(found))


def compile_step(
    config: dict[str, Any], topology: str, batch_per_chip: int
) -> dict[str, Any]:
  """Compiles the training step of a config for a topology.

  Args:
    config: A resolved config.
    topology: E.g. "v5e:2x2".
    batch_per_chip: Images per chip.

  Returns:
    What is printed, by name; bytes and operations are per chip.

  Raises:
    UserError: The TPU compiler is not installed, or the topology unknown.
  """
  # Without it the compiler asks a cloud machine's metadata server first.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  # Arrays of this process stay on the CPU, with or without a TPU beside it.
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  import jax
  from jax.experimental import topologies
  import jax.numpy as jnp
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec as P
  import numpy as np

  from ctxseg_jax import errors
  from ctxseg_jax import experiment
  from ctxseg_jax.training import step as step_lib

  try:
    devices = topologies.get_topology_desc(
        topology_name=topology, platform="tpu"
    ).devices
  except (RuntimeError, ValueError, NotImplementedError) as e:
    raise errors.UserError(
        f"--topologies: cannot compile for {topology!r}:"
        f" {str(e).splitlines()[0]}; is the extra installed"
        ' (pip install -e ".[tpu]")?'
    ) from e
  mesh = jax.sharding.Mesh(np.array(devices), (step_lib.AXIS,))
  run = experiment.parse(config)
  tx, _ = run.optimizer.make(run.total_steps)
  step = run.train_step(tx, mesh)
  size = run.augmentation.crop_size
  state, key = jax.eval_shape(
      lambda: (run.init_state(tx, jax.random.key(0)), jax.random.key(0))
  )

  def shape(x, *axes):
    sharding = NamedSharding(mesh, P(*axes))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  batch_size = batch_per_chip * mesh.size
  batch = {
      "image": jax.ShapeDtypeStruct((batch_size, *size, 3), jnp.uint8),
      "label": jax.ShapeDtypeStruct(
          (batch_size, *run.spec.label_shape(size)), jnp.uint8
      ),
  }
  arguments = (
      jax.tree.map(shape, state),
      jax.tree.map(lambda x: shape(x, step_lib.AXIS), batch),
      shape(key),
  )
  lowered = step.lower(*arguments)
  start = time.perf_counter()
  compiled = lowered.compile()
  seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()
  cost = compiled.cost_analysis()
  batch_norms = sum(
      path[-1].key == "mean"
      for path, _ in jax.tree_util.tree_leaves_with_path(
          state.model_state["batch_stats"]
      )
  )
  return {
      "topology": topology,
      "chips": mesh.size,
      "images_per_chip": batch_per_chip,
      "compile_seconds": round(seconds, 1),
      "batch_norms": batch_norms,
      "collectives": count_collectives(compiled.as_text()),
      "flops": cost["flops"],
      "bytes_accessed": cost["bytes accessed"],
      "temporary_bytes": memory.temp_size_in_bytes,
      "argument_bytes": memory.argument_size_in_bytes,
      "output_bytes": memory.output_size_in_bytes,
  }


def main(argv):
  del argv
  for topology in flags.FLAGS.topologies:
    result = compile_step(
        flags.FLAGS.config.to_dict(), topology, flags.FLAGS.batch_per_chip
    )
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  commands.define_config()
  flags.DEFINE_list(
      "topologies",
      ["v5e:2x2", "v5e:16x16"],
      "Names as TPU topologies have them.",
  )
  flags.DEFINE_integer("batch_per_chip", 2, "Images per chip.", lower_bound=1)
  flags.mark_flags_as_required(["config"])
  commands.run(main)
