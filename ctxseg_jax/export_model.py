r"""Writes a trained network as programs that run without this package.

  python -m ctxseg_jax.export_model --workdir runs/camvid --output camvid_model

The folder has model.stablehlo (JAX on CPUs, GPUs and TPUs), model.onnx (with
`pip install -e ".[onnx]"`), model.json and a model card, README.md. Each file
takes photographs as they are and is held against the network it was made from.
To pass on the weights alone: `ctxseg_jax.pretrained.export`.
"""

from collections.abc import Sequence
import os
from typing import Any

from absl import flags
from absl import logging
import jax

from ctxseg_jax import columns
from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import files
from ctxseg_jax import json_text
from ctxseg_jax import schema
from ctxseg_jax.bounds import PositiveInt
from ctxseg_jax.deployment import card
from ctxseg_jax.deployment import checking
from ctxseg_jax.deployment import formats
from ctxseg_jax.deployment import inference
from ctxseg_jax.deployment import loaders


def export(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    which: str = "best",
    size: tuple[int, int] | None = None,
    kinds: Sequence[str] = tuple(loaders.FILES),
) -> str:
  """Writes a new folder; returns what it holds, as lines for the user.

  Args:
    workdir: Of a trained network.
    output: The folder.
    which: "best", "last", or a step that is kept.
    size: (H, W) of the images that the files are to take. None leaves it free
      in StableHLO where the network allows that, else it is that of training
      crops.
    kinds: Keys of `loaders.FILES`.

  Raises:
    UserError: No such checkpoint, no file could be made, one predicts otherwise
      than the network, or the folder cannot be written.
  """
  output = files.local_path(output, "--output")
  files.refuse_existing(output)
  trained = inference.in_float32(experiment.load(workdir, which))
  if size is not None and trained.spec.task == "classification":
    raise errors.UserError(
        f"--size: {trained.spec.name} has one class per image, and its network"
        " takes images of the size of its crops; leave it out"
    )
  fixed = size or inference.default_size(trained)
  may_be_free = size is None and min(fixed) >= formats.SMALLEST
  made, refused, notes = _make(trained, kinds, fixed, may_be_free)

  is_free = any(size is None for _, size in made.values())
  other = (fixed[0] + 9, fixed[1] + 23) if is_free else None
  batches = checking.make_batches(fixed, other)
  ours = checking.run_ours(trained, batches)
  resizes = inference.resizes_images(trained.run.settings, fixed)
  tolerance = checking.RESIZED_TOLERANCE if resizes else checking.TOLERANCE
  checks = {}
  with files.writing_folder(output) as folder:
    for kind, (content, size) in made.items():
      path = folder / loaders.FILES[kind]
      files.write_atomically(path, content)
      try:
        checks[kind] = _check(kind, folder, size, batches, ours, tolerance)
      except errors.UserError as e:
        if kind == "StableHLO":
          raise
        refused[kind] = str(e)
        path.unlink()
    if not checks:
      reasons = (f"{kind}: {why}" for kind, why in refused.items())
      raise errors.UserError(f"nothing to export: {'; '.join(reasons)}")
    model = card.describe(trained, checks, refused)
    text = json_text.to_json(model, indent=1) + "\n"
    files.write_atomically(folder / "model.json", text)
    files.write_atomically(folder / "README.md", card.write(trained, model))
  return "\n".join(
      [
          *_table(checks, ours),
          *(f"{kind} is left out: {why}" for kind, why in refused.items()),
          *notes,
          f"written: {files.printable(output)}, step {trained.step}; times are"
          " of a {}x{} image".format(*fixed),
      ]
  )


def _make(trained, kinds, fixed, may_be_free):
  """Returns files with their sizes, why others are left out, and notes."""
  function = inference.make(trained)
  made, refused, notes = {}, {}, []
  if "StableHLO" in kinds:
    if may_be_free and inference.takes_any_size(trained.run.settings):
      try:
        made["StableHLO"] = formats.to_stablehlo(function, None), None
      except Exception as e:  # A size may help; what else is wrong, it shows.
        reason = str(e).partition("\n")[0]
        logging.info("Without a size: %s: %s", type(e).__name__, reason)
        notes.append(
            "StableHLO takes images of one size: JAX cannot leave it free in"
            " this network"
        )
    if not made:
      made["StableHLO"] = formats.to_stablehlo(function, fixed), fixed
  if "ONNX" in kinds:
    try:
      made["ONNX"] = formats.to_onnx(function, fixed), fixed
    except formats.RefusedError as e:
      refused["ONNX"] = str(e)
  return made, refused, notes


def _check(kind, folder, size, batches, ours, tolerance) -> dict[str, Any]:
  """Runs a file; returns what is said of it."""
  count = len(batches) if size is None else 1
  theirs = checking.run_fresh(kind, folder, batches[:count])
  return {
      "name": loaders.FILES[kind],
      "image_size": size or "any",
      "bytes": (folder / loaders.FILES[kind]).stat().st_size,
      "difference": checking.compare(kind, theirs, ours, tolerance),
      "milliseconds": theirs.milliseconds,
      "milliseconds_of_ctxseg_jax": ours.milliseconds,
  }


def _table(checks, ours) -> list[str]:
  rows = [
      ("format", "images (HxW)", "MB", "largest difference", "ms per image"),
      ("ctxseg_jax", "", "", "", f"{ours.milliseconds:.0f}"),
  ]
  for kind, check in checks.items():
    size = check["image_size"]
    rows.append(
        (
            kind,
            size if size == "any" else "{}x{}".format(*size),
            f"{check['bytes'] / 1e6:.1f}",
            f"{check['difference']:.1e}",
            f"{check['milliseconds']:.0f}",
        )
    )
  return columns.align(rows, "<<>>>")


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string("workdir", None, "Work dir of train.py.")
  flags.DEFINE_string("output", None, "Folder to write; it must not exist.")
  which = "'best', 'last' or a step that is kept."
  flags.DEFINE_string("checkpoint", "best", which)
  flags.DEFINE_list(
      "size",
      None,
      "H,W of the images that the files take. Default: any in StableHLO where"
      " the network allows it, else the size of training crops.",
  )
  flags.DEFINE_multi_enum(
      "format",
      list(loaders.FILES),
      list(loaders.FILES),
      "What to write; several if given several times.",
      case_sensitive=False,
  )
  flags.mark_flags_as_required(["workdir", "output"])


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  # No accelerator is taken away from a run, and the check has it on the CPU.
  jax.config.update("jax_platforms", "cpu")
  size = flags.FLAGS.size
  if size is not None:
    kind = tuple[PositiveInt, PositiveInt]
    size = schema.convert(schema.Text(",".join(size)), kind, "--size")
  text = export(
      flags.FLAGS.workdir,
      flags.FLAGS.output,
      which=flags.FLAGS.checkpoint,
      size=size,
      kinds=flags.FLAGS.format,
  )
  print(text)


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  define_flags()
  commands.run(main)
