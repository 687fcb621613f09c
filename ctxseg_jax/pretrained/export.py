r"""Writes a trained network to one safetensors file, to be shared.

  python -m ctxseg_jax.pretrained.export --workdir runs/camvid \
      --output camvid.safetensors

Tensors are called by their paths, and the config is in the metadata: the file
is enough for `ctxseg_jax.pretrained.convert --source ctxseg_jax`.
"""

from collections.abc import Sequence
import json
import os

from absl import flags
import flax
import jax
import numpy as np

from ctxseg_jax import commands
from ctxseg_jax import experiment
from ctxseg_jax import files
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained.formats import safetensors_file


def export(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    which: str = "best",
) -> str:
  """Writes a new file; returns what it holds, in a line for the user.

  `which` is "best", "last", or a step that is kept.

  Raises:
    UserError: No such checkpoint, or the file cannot be written.
  """
  output = files.local_path(output, "--output")
  files.refuse_existing(output)
  trained = experiment.load(workdir, which)
  data = trained.run.data
  flat = flax.traverse_util.flatten_dict(trained.variables, sep="/")
  tensors = {path: np.asarray(x) for path, x in flat.items()}
  metadata = {
      "format": "ctxseg_jax network",
      "config": json.dumps(trained.config),
      "step": str(trained.step),
      "class_names": json.dumps(trained.spec.class_names),
      **loading.Normalisation(data.mean, data.std).metadata(),
  }
  files.remove_leftovers(output)
  safetensors_file.write(output, tensors, metadata)
  return f"written: {output}, {len(tensors)} tensors of step {trained.step}"


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  # Nothing is computed: no accelerator is taken away from a run.
  jax.config.update("jax_platforms", "cpu")
  print(export(flags.FLAGS.workdir, flags.FLAGS.output, flags.FLAGS.checkpoint))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_string("workdir", None, "Work dir of train.py.")
  flags.DEFINE_string("output", None, "File to write; it must not exist.")
  which = "'best', 'last' or a step that is kept."
  flags.DEFINE_string("checkpoint", "best", which)
  flags.mark_flags_as_required(["workdir", "output"])
  commands.run(main)
