"""Lays evaluations of several runs side by side.

  python -m ctxseg_jax.compare runs/a runs/b
  python -m ctxseg_jax.compare runs/*/eval/*_split-test.json --output x.html

A work dir stands for the evaluation that its best checkpoint had in training; a
file of its `eval/` stands for itself. --output writes a page to open in a
browser, with curves, confusion matrices, calibration and every image.
"""

from collections.abc import Sequence
import math
import os
from typing import Any

from absl import flags

from ctxseg_jax import columns
from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax import json_text
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import report as report_lib
from ctxseg_jax.evaluation import tables
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.evaluation.tasks import TASKS
from ctxseg_jax.training import workdir

# What figures depend on beside the network.
_CONDITIONS = ("dataset", "split", "step", "procedure", "protocol")
_WIDTH = 32  # Of a value of a config.


def load(path: str) -> dict[str, Any]:
  """Returns what `report.describe_run` does, of a work dir or an evaluation.

  Raises:
    UserError: It is neither, or has no evaluation.
  """
  given = files.local_path(path, "compare").absolute()
  is_file = given.is_file()
  folder = workdir.Workdir(given.parents[1] if is_file else given)
  config = workdir.read_config(folder.path)
  evaluations = folder.read_evaluations()
  candidates = [workdir.read_evaluation(given)] if is_file else evaluations
  if not candidates:
    raise errors.UserError(
        f"{files.printable(path)}: no evaluation in eval/; run eval.py on it,"
        " or name files of its eval/"
    )
  try:
    report = max(candidates, key=_score)
    evaluate.describe(report)
  except (LookupError, TypeError, ValueError, AttributeError) as e:
    raise errors.UserError(
        f"{files.printable(path)}: holds no evaluation of this version"
        f" ({type(e).__name__}: {e}); run eval.py again"
    ) from e
  return report_lib.describe_run(
      str(given), report, config, folder.metrics.read(), evaluations
  )


def _score(report):
  score = report[TASKS[report["task"]].score]
  return -1.0 if math.isnan(score) else score


def load_all(paths: Sequence[str]) -> list[dict[str, Any]]:
  """Returns the runs, with names that tell them apart.

  Raises:
    UserError: As `load`, or they are not of the same classes.
  """
  runs = [load(path) for path in paths]
  first = runs[0]["report"]
  for path, run in zip(paths, runs, strict=True):
    if run["report"]["class_names"] != first["class_names"]:
      raise errors.UserError(
          f"{files.printable(path)}: has the classes of"
          f" {run['report']['dataset']}, expected those of"
          f" {first['dataset']} as in {files.printable(paths[0])}; compare runs"
          " of the same classes"
      )
  shared = os.path.commonpath([run["name"] for run in runs])
  for run in runs:
    run["name"] = files.printable(os.path.relpath(run["name"], shared))
  return runs


def describe(runs: Sequence[dict[str, Any]]) -> str:
  """Returns a table of figures, of classes and of what differs."""
  reports = [run["report"] for run in runs]
  task = TASKS[reports[0]["task"]]
  figures = tasks.figures(reports[0])
  rows = [("", *(run["name"] for run in runs))]
  rows += [
      (title, *(tables.percent(report.get(name)) for report in reports))
      for name, title in figures.items()
  ]
  rows += [
      (
          name,
          *(tables.percent(report[task.class_figure][i]) for report in reports),
      )
      for i, name in enumerate(reports[0]["class_names"])
  ]
  if len(runs) == 2:
    last = ["difference", *(_difference(*row[1:]) for row in rows[1:])]
    rows = [(*row, cell) for row, cell in zip(rows, last, strict=True)]
  lines = columns.align(rows, "<" + ">" * (len(rows[0]) - 1))
  lines.insert(2 + len(figures), lines[1])
  conditions = [{x: report.get(x) for x in _CONDITIONS} for report in reports]
  configs = [run["config"] for run in runs]
  lines += _differing("Evaluations differ in", runs, conditions)
  lines += _differing("Configs differ in", runs, configs)
  return "\n".join(lines)


def _difference(old: str, new: str) -> str:
  return "-" if "-" in (old, new) else f"{float(new) - float(old):+.2f}"


def _differing(title, runs, values):
  """Returns a table of the keys whose values are not all equal, if any."""
  texts = [{k: json_text.to_json(x) for k, x in of.items()} for of in values]
  keys = sorted({key for of in texts for key in of})
  rows = [[title, *(run["name"] for run in runs)]]
  for key in keys:
    row = [of.get(key, "(absent)") for of in texts]
    if len(set(row)) > 1:
      rows.append([key, *map(_short, row)])
  return ["", *columns.align(rows, "<" * len(rows[0]))] if rows[1:] else []


def _short(text: str) -> str:
  return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string("output", None, "Page to write, such as runs.html.")


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  paths = argv[1:]
  if len(paths) < 2:
    raise errors.UserError(
        f"compare: expected two or more work dirs, got {len(paths)}; such as"
        " python -m ctxseg_jax.compare runs/a runs/b"
    )
  output = flags.FLAGS.output
  if output is not None:
    output = files.local_path(output, "--output")
    files.refuse_existing(output)
  runs = load_all(paths)
  print(describe(runs))
  if output is not None:
    title = ", ".join(run["name"] for run in runs)
    files.write_atomically(output, report_lib.render(title, runs))
    print(f"\nwritten: {files.printable(output)}")


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  define_flags()
  commands.run(main, takes_arguments=True)
