r"""Turns weights of another project, or exported ones, into a work dir.

  python -m ctxseg_jax.pretrained.convert --source mmseg --checkpoint F.pth \
      --output runs/converted
  python eval.py --workdir runs/converted
  python train.py --config ... --workdir runs/mine \
      --config.init_from.source=ctxseg_jax \
      --config.init_from.path=runs/converted

The network is told by the names and shapes of the tensors, or by `--config`.
The work dir is at step 0, and appears when it is complete. The mean and
deviation of the images come with the weights, not from the config. A backbone
alone becomes `backbone.safetensors` in that folder, a checked copy to start
training from.
"""

from collections.abc import Sequence
import json
import os
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp

from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import files
from ctxseg_jax.pretrained import loading
from ctxseg_jax.pretrained import recognition
from ctxseg_jax.pretrained.formats import safetensors_file
from ctxseg_jax.pretrained.formats import weight_files
from ctxseg_jax.pretrained.sources import SOURCES
from ctxseg_jax.training import checkpoint as checkpoint_lib
from ctxseg_jax.training import workdir as workdir_lib

BACKBONE_FILE = "backbone.safetensors"


def convert(
    config: experiment.Config | None,
    weights: loading.InitFrom,
    output: str | os.PathLike[str],
) -> str:
  """Writes a new folder with the weights of a file; returns a summary.

  Without a config it is the one in the file, or what `recognition` says.

  Raises:
    UserError: The file, the config or the folder are not usable; nothing is
      left behind.
  """
  output = files.local_path(output, "--output").absolute()
  files.refuse_existing(output)
  contents, lines = weight_files.read(weights.path), []
  if config is None and weights.source == "ctxseg_jax":
    config = stored_config(weights, contents)
  elif config is None:
    config, weights, lines = recognition.recognise(weights, contents)
  run = experiment.parse(config)
  tx, _ = run.optimizer.make(run.total_steps)
  state = jax.eval_shape(lambda: run.init_state(tx, jax.random.key(0)))
  template = loading.flatten(state)
  loaded = loading.load(weights, run.model, template, contents=contents)
  lines.insert(0, loaded.summary)
  lines += [f"warning: {line}" for line in loaded.differences]
  if weights.channel_order == "bgr":
    lines.append("The first convolution was turned round: from BGR to RGB.")
  with files.writing_folder(output) as folder:
    if loaded.whole:
      config, changes = _with_normalisation(run.config, loaded.normalisation)
      _write_workdir(folder, config, state, tx, loaded.arrays)
      lines += [*changes, f"written: {output}, a work dir at step 0"]
    else:
      metadata = {"format": "ctxseg_jax backbone"}
      if loaded.normalisation:
        metadata.update(loaded.normalisation.metadata())
      safetensors_file.write(folder / BACKBONE_FILE, loaded.arrays, metadata)
      lines.append(
          f"written: {output / BACKBONE_FILE}, the backbone alone: the file has"
          " no head like the config's. Train from it with"
          " --config.init_from.source=ctxseg_jax and --config.init_from.path"
      )
    files.refuse_existing(output)
  return "\n".join(lines)


def _with_normalisation(config, normalisation):
  """Returns the config with what the weights expect, and what changed."""
  data, changes = dict(config["data"]), []
  for key, value in (normalisation._asdict() if normalisation else {}).items():
    if tuple(data[key]) != value:
      changes.append(
          f"data.{key} is {value}, which goes with the weights, instead of"
          f" {tuple(data[key])}: to train on, pass it to train.py as"
          f" --config.data.{key}; if yours were trained otherwise, write it"
          " into config.json"
      )
      data[key] = value
  return {**config, "data": data}, changes


def _write_workdir(path, config, state, tx, arrays):
  state = loading.with_variables(state, arrays)
  zero = jnp.zeros((), jnp.int32)
  state = state.replace(step=zero, opt_state=jax.jit(tx.init)(state.params))
  with workdir_lib.Workdir(path) as folder:
    folder.write_config(config)
    with checkpoint_lib.Checkpoints(folder.checkpoints) as checkpoints:
      checkpoints.save(0, state)
      checkpoints.wait()
    checkpoint_lib.save_best(folder.best, 0, state)


def stored_config(
    weights: loading.InitFrom, contents: loading.Contents
) -> dict[str, Any]:
  """Returns the config that a whole network of our own brings in its file.

  Raises:
    UserError: It brings none, or a damaged one.
  """
  text = contents[1].get("config")
  if text is None:
    raise errors.UserError(
        f"--config: missing; {files.printable(weights.path)} is no whole"
        " network that was exported here, which brings its own"
    )
  try:
    config = json.loads(text)
    if not isinstance(config, dict):
      raise ValueError(f"a {type(config).__name__} in place of an object")
  except (ValueError, RecursionError) as e:
    raise errors.UserError(
        f"{files.printable(weights.path)}: the config in its metadata is"
        f" damaged ({e}). Export it again."
    ) from e
  return config


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  # Nothing is computed: no accelerator is taken away from a run.
  jax.config.update("jax_platforms", "cpu")
  given = flags.FLAGS
  weights = loading.InitFrom(
      given.source, given.checkpoint, given.channel_order
  )
  print(convert(given.config, weights, given.output))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  commands.define_config()
  flags.DEFINE_enum("source", None, sorted(SOURCES), "Whose names it has.")
  flags.DEFINE_string("checkpoint", None, "Weights: .pth, .safetensors.")
  flags.DEFINE_string("output", None, "Folder to write; it must not exist.")
  help_text = "Of the images the weights expect; Caffe's are bgr."
  flags.DEFINE_enum("channel_order", "rgb", ("rgb", "bgr"), help_text)
  flags.register_validator("checkpoint", bool, "expected the path of a file")
  flags.mark_flags_as_required(["source", "checkpoint", "output"])
  commands.run(main)
