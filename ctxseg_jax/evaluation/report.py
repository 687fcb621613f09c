"""Evaluations of one run, or of several, as an HTML page of one file.

The page is made of the files in `page/`: a frame, its style, and a script that
draws everything from JSON. So what users name enters the page in one place, as
JSON, and the script makes text of it and never markup.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import html
import pathlib
import string
from typing import Any

import flax
import numpy as np

from ctxseg_jax import json_text
from ctxseg_jax.evaluation import curves
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.evaluation.tasks import TASKS

_PAGE = pathlib.Path(__file__).parent / "page"
_MAX_POINTS = 400  # Of a curve.


def describe_run(
    name: str,
    report: Mapping[str, Any],
    config: Mapping[str, Any],
    metrics: curves.Rows,
    evaluations: curves.Rows,
) -> dict[str, Any]:
  """Returns what the page shows of a run.

  Args:
    name: What to call it.
    report: An evaluation of it; the page describes this one.
    config: Its config.
    metrics: Rows of its `metrics.jsonl`.
    evaluations: Those of its training, by step.
  """
  score = TASKS[report["task"]].score
  losses = {key for row in metrics for key in row if key.startswith("loss/")}
  steps, scores = curves.series(evaluations, score)
  best = int(np.argmax(scores)) if scores else None
  return {
      "name": name,
      "report": report,
      "config": flax.traverse_util.flatten_dict(dict(config), sep="."),
      "losses": {
          key.removeprefix("loss/"): _thin(*curves.series(metrics, key))
          for key in sorted(losses)
      },
      "learning_rate": _thin(*curves.series(metrics, "learning_rate")),
      "score": [steps, scores],
      "best": None if best is None else [steps[best], scores[best]],
      "wall_seconds": max(curves.series(metrics, "wall_seconds")[1], default=0),
  }


def render(
    title: str,
    runs: Sequence[Mapping[str, Any]],
    pictures: Sequence[Mapping[str, Any]] = (),
) -> str:
  """Returns the page.

  Args:
    title: Its title.
    runs: Results of `describe_run`, all of one task and the same classes.
    pictures: Those of `report_pictures.encode`.
  """
  task = TASKS[runs[0]["report"]["task"]]
  data = json_text.to_json(
      {
          "figures": tasks.figures(runs[0]["report"]),
          "class_figure": task.class_figure,
          "image_figures": task.image_figures,
          "runs": runs,
          "pictures": pictures,
      }
  )
  style, script, frame = (
      (_PAGE / f"report.{kind}").read_text("utf-8")
      for kind in ("css", "js", "html")
  )
  # In JSON a "<" occurs in strings alone; escaped it cannot end the element.
  data = data.replace("<", "\\u003c")
  return string.Template(frame).substitute(
      title=html.escape(title), style=style, script=script, data=data
  )


def _thin(steps: list[int], values: list[float]) -> list[list[float]]:
  """Returns a curve of a bounded number of points, means of their stretches."""
  parts = min(len(steps), _MAX_POINTS)
  if not parts:
    return [[], []]
  stretches = np.array_split(np.arange(len(steps)), parts)
  return [
      [float(f"{np.mean([x[i] for i in part]):.6g}") for part in stretches]
      for x in (steps, values)
  ]
