"""Evaluates a trained network: per-class table, score, JSON in the work dir.

  python eval.py --workdir runs/quickstart --report
  python eval.py --workdir runs/camvid --split val --flip \
      --scales 0.5,0.75,1.0,1.25,1.5,1.75
"""

import contextlib
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
_VIEWS = commands.define_views()
_PROTOCOL = flags.DEFINE_string(
    "protocol", None, "How absent classes count; see docs/evaluation.md."
)
_REPORT = flags.DEFINE_bool(
    "report", False, "Write report.html, a page to open in a browser, too."
)
flags.mark_flags_as_required(["workdir"])


def main(argv):
  del argv
  from ctxseg_jax import experiment
  from ctxseg_jax import files
  from ctxseg_jax import progress
  from ctxseg_jax.data import records
  from ctxseg_jax.evaluation import evaluate
  from ctxseg_jax.evaluation import report_pictures
  from ctxseg_jax.training import reports
  from ctxseg_jax.training import workdir

  trained = experiment.load(_WORKDIR.value, _CHECKPOINT.value)
  run = trained.run
  settings = trained.settings_with((*_VIEWS, _PROTOCOL))
  options = dict(
      split=_SPLIT.value or run.data.eval_split,
      protocol=_PROTOCOL.value or run.protocol,
  )
  data_dir = _DATA_DIR.value or run.data.data_dir
  source = records.open_source(run.spec, options["split"], data_dir)
  usual = dataclasses.asdict(run.settings) | dict(
      split=run.data.eval_split,
      protocol=run.protocol,
      data_dir=os.path.abspath(run.data.data_dir),
  )
  used = dataclasses.asdict(settings) | options
  used["data_dir"] = os.path.abspath(data_dir)
  name = evaluate.report_name(trained.step, usual, used)
  folder = workdir.Workdir(_WORKDIR.value)
  page = files.writing(folder.report) if _REPORT.value else None
  with (
      folder.writing_evaluation(name) as written,
      page or contextlib.nullcontext() as page_file,
      progress.shown("evaluating") as report_progress,
  ):
    report, kept = evaluate.evaluate(
        trained.predictor(settings),
        trained.variables,
        source,
        run.spec,
        num_extremes=report_pictures.NUM_EACH if page else 0,
        report_progress=report_progress,
        **options,
    )
    report["step"] = trained.step
    path = written(report)
    if page:
      text = reports.make_page(folder, trained.config, run.spec, report, kept)
      page_file.write(text.encode())
  print(evaluate.describe(report))
  print(f"written: {os.path.relpath(path)}")
  if page:
    print(f"report: {os.path.relpath(folder.report)}")


if __name__ == "__main__":
  commands.run(main)
