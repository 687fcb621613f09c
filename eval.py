"""Evaluates a trained network: per-class table, score, JSON in the work dir.

  python eval.py --workdir runs/quickstart
  python eval.py --workdir runs/camvid --split val --flip \
      --scales 0.5,0.75,1.0,1.25,1.5,1.75
"""

import dataclasses
import os

from absl import flags

from ctxseg_jax import commands

_WORKDIR = flags.DEFINE_string("workdir", None, "Work dir of train.py.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "'best', 'last' or a step that is kept."
)
_SPLIT = flags.DEFINE_string("split", None, "Split; default: the config's.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets; default: the config's."
)
_SCALES = flags.DEFINE_list("scales", None, "Scales to average over.")
_FLIP = flags.DEFINE_bool("flip", None, "Add the mirrored images.")
_MODE = flags.DEFINE_enum("mode", None, ["whole", "slide"], "Whole or windows.")
_CROP_SIZE = flags.DEFINE_list("crop_size", None, "H,W of the windows.")
_STRIDE = flags.DEFINE_list("stride", None, "H,W between windows.")
_PROTOCOL = flags.DEFINE_string(
    "protocol", None, "How absent classes enter the mean; see the README."
)
flags.mark_flags_as_required(["workdir"])


def main(argv):
  del argv
  from ctxseg_jax import errors
  from ctxseg_jax import experiment
  from ctxseg_jax.data import pipeline
  from ctxseg_jax.evaluation import evaluate
  from ctxseg_jax.training import workdir

  trained = experiment.load(_WORKDIR.value, _CHECKPOINT.value)
  config = trained.config
  changes = {"mode": _MODE.value, "flip": _FLIP.value}
  changes["scales"] = _numbers("scales", _SCALES.value, float)
  changes["crop_size"] = _numbers("crop_size", _CROP_SIZE.value, int, 2)
  changes["stride"] = _numbers("stride", _STRIDE.value, int, 2)
  changes = {k: v for k, v in changes.items() if v is not None}
  known = {field.name for field in dataclasses.fields(trained.task.settings)}
  meaningless = sorted(set(changes) - known)
  if _PROTOCOL.value and not trained.task.protocols:
    meaningless.append("protocol")
  if meaningless:
    raise errors.UserError(
        f"--{meaningless[0]}: has no meaning for the {trained.spec.task} of"
        f" {trained.spec.name}; leave it out"
    )
  protocol = _PROTOCOL.value or experiment.protocol(config)
  if _PROTOCOL.value and protocol not in trained.task.protocols:
    raise errors.UserError(
        f"--protocol: unknown {protocol!r}; known:"
        f" {', '.join(sorted(trained.task.protocols))}"
    )
  if changes.get("mode") == "slide" and "crop_size" not in changes:
    changes["crop_size"] = tuple(config["data"]["crop_size"])
  how = experiment.inference_settings(config, **changes)

  split = _SPLIT.value or config["data"]["eval_split"]
  source = pipeline.open_source(
      trained.spec, split, _DATA_DIR.value or config["data"]["data_dir"]
  )
  report, _ = evaluate.evaluate(
      trained.predictor(how),
      trained.variables,
      source,
      trained.spec,
      split=split,
      protocol=protocol,
  )
  report["step"] = trained.step
  print(evaluate.describe(report))
  # The plain name is the protocol of the training; others are told apart.
  name = str(trained.step)
  same = how == experiment.inference_settings(config)
  if split != config["data"]["eval_split"] or not same or _PROTOCOL.value:
    words = f"{split} {how.describe()} {protocol or ''}"
    name += "_" + "_".join(words.replace(",", " ").split())
  path = workdir.Workdir(_WORKDIR.value).write_evaluation(name, report)
  print(f"written: {os.path.relpath(path)}")


def _numbers(name, values, kind, count=None):
  """Parses a list flag, or says what is wrong with it."""
  from ctxseg_jax import errors

  if values is None:
    return None
  try:
    numbers = tuple(kind(v) for v in values)
  except ValueError:
    numbers = ()
  if not numbers or min(numbers) <= 0 or (count and len(numbers) != count):
    raise errors.UserError(
        f"--{name}: expected {count or 'positive'} numbers separated by"
        f" commas, got {','.join(values)!r}"
    )
  return numbers


if __name__ == "__main__":
  commands.run(main)
