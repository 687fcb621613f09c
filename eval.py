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
    "protocol", None, "How absent classes count; see docs/evaluation.md."
)
flags.mark_flags_as_required(["workdir"])


def main(argv):
  del argv
  from ctxseg_jax import experiment
  from ctxseg_jax import progress
  from ctxseg_jax.data import records
  from ctxseg_jax.evaluation import evaluate
  from ctxseg_jax.training import workdir

  trained = experiment.load(_WORKDIR.value, _CHECKPOINT.value)
  run = trained.run
  settings = _change(trained)
  protocol = _PROTOCOL.value or run.protocol
  split = _SPLIT.value or run.data.eval_split
  data_dir = _DATA_DIR.value or run.data.data_dir
  with progress.shown("evaluating") as report_progress:
    report, _ = evaluate.evaluate(
        trained.predictor(settings),
        trained.variables,
        records.open_source(trained.spec, split, data_dir),
        trained.spec,
        split=split,
        protocol=protocol,
        report_progress=report_progress,
    )
  report["step"] = trained.step
  print(evaluate.describe(report))
  name = evaluate.report_name(
      trained.step,
      dataclasses.asdict(run.settings)
      | dict(
          split=run.data.eval_split,
          protocol=run.protocol,
          data_dir=os.path.abspath(run.data.data_dir),
      ),
      dataclasses.asdict(settings)
      | dict(
          split=split, protocol=protocol, data_dir=os.path.abspath(data_dir)
      ),
  )
  path = workdir.Workdir(_WORKDIR.value).write_evaluation(name, report)
  print(f"written: {os.path.relpath(path)}")


def _change(trained):
  """Returns settings with what flags change; refuses flags of other tasks."""
  from ctxseg_jax import errors

  usual = trained.run.settings
  changes = {
      "mode": _MODE.value,
      "flip": _FLIP.value,
      "scales": _numbers(_SCALES, float),
      "crop_size": _numbers(_CROP_SIZE, int),
      "stride": _numbers(_STRIDE, int),
  }
  changes = {
      name: value for name, value in changes.items() if value is not None
  }
  meaningless = [name for name in changes if not hasattr(usual, name)]
  if _PROTOCOL.value and not trained.task.protocols:
    meaningless.append("protocol")
  if meaningless:
    raise errors.UserError(
        f"--{meaningless[0]}: has no meaning for the {trained.spec.task} of"
        f" {trained.spec.name}; leave it out"
    )
  if _PROTOCOL.value and _PROTOCOL.value not in trained.task.protocols:
    raise errors.UserError(
        f"--protocol: unknown {_PROTOCOL.value!r}; known:"
        f" {', '.join(sorted(trained.task.protocols))}"
    )
  if changes.get("mode") == "slide" and usual.crop_size is None:
    changes.setdefault("crop_size", trained.run.augmentation.crop_size)
  try:
    return dataclasses.replace(usual, **changes)
  except ValueError as e:
    raise errors.UserError(f"--{e}") from e


def _numbers(flag, kind):
  """Returns the numbers of a list flag, or None if it is not given."""
  from ctxseg_jax import errors

  try:
    return flag.value and tuple(map(kind, flag.value))
  except ValueError as e:
    raise errors.UserError(
        f"--{flag.name}: expected numbers separated by commas, got"
        f" {','.join(flag.value)!r}"
    ) from e


if __name__ == "__main__":
  commands.run(main)
