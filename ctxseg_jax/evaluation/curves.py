"""Curves of a training."""

from collections.abc import Mapping
from collections.abc import Sequence
import io
import math
import os
from typing import Any

from matplotlib import figure

from ctxseg_jax import files

Rows = Sequence[Mapping[str, Any]]


def plot_curves(
    metrics: Rows,
    evaluations: Rows,
    path: str | os.PathLike[str],
    references: Mapping[str, float],
    scores: Mapping[str, str],
) -> None:
  """Draws loss, learning rate and scores over the steps as a PNG.

  Args:
    metrics: Rows of `metrics.jsonl`: `"step"`, `"learning_rate"` and the loss
      terms `"loss/..."`; other entries and null are left out.
    evaluations: `"step"` and the scores (fractions) each.
    path: The file to write.
    references: Known values (fractions) of the first score by name, drawn as
      dashed lines.
    scores: Names of the scores and what to call them. The highest value of the
      first is written beside it.
  """
  fig = figure.Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
  panels = fig.subplot_mosaic("ls;rs", height_ratios=(3, 1))
  losses, rate, results = (panels[name] for name in "lrs")
  _plot_losses(losses, metrics)
  rate.plot(*series(metrics, "learning_rate"), color="tab:gray")
  rate.set_ylim(bottom=0.0)
  _plot_scores(results, evaluations, scores, references)
  last = max((row["step"] for row in (*metrics, *evaluations)), default=1)
  for axes, name in (
      (losses, "training loss"),
      (rate, "learning rate"),
      (results, "evaluation, %"),
  ):
    axes.set_title(name, loc="left")
    axes.set_xlabel("step")
    axes.set_xlim(0, 1.03 * max(last, 1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  data = io.BytesIO()
  fig.savefig(data, format="png")
  files.write_atomically(path, data.getvalue())


def _plot_losses(axes, metrics):
  names = {name for row in metrics for name in row if name.startswith("loss/")}
  for name in sorted(names):
    steps, values = series(metrics, name)
    # A line needs two points to be seen.
    style = dict(marker="." if len(steps) < 2 else None, linewidth=1.1)
    if name == "loss/total":
      style |= dict(color="black", linewidth=1.6, zorder=3)
    axes.plot(steps, values, label=name.removeprefix("loss/"), **style)
  axes.set_ylim(bottom=0.0)
  if names:
    axes.legend(frameon=False)


def _plot_scores(axes, evaluations, scores, references):
  curves = {title: series(evaluations, x) for x, title in scores.items()}
  for title, (steps, values) in curves.items():
    values = [100 * x for x in values]
    axes.plot(steps, values, label=title, marker="o", markersize=4)
  steps, values = next(iter(curves.values()))
  if values:
    best = max(values)
    axes.annotate(
        f"{100 * best:.2f}",
        (steps[values.index(best)], 100 * best),
        textcoords="offset points",
        xytext=(0, 7),
        ha="center",
        fontweight="bold",
    )
  for i, (name, value) in enumerate(references.items(), start=len(curves)):
    label = f"{name} {100 * value:.2f}"
    axes.axhline(100 * value, label=label, color=f"C{i}", linestyle="--")
  # Where a rising curve leaves room; on white, as lines may run behind it.
  axes.legend(edgecolor="none", framealpha=0.9, loc="lower right")
  shown = (x for _, values in curves.values() for x in values)
  highest = 100 * max((*shown, *references.values()), default=1.0)
  axes.set_ylim(0.0, min(105.0, 1.15 * highest + 1.0))


def series(rows: Rows, name: str) -> tuple[list[int], list[float]]:
  """Returns steps and values of the rows that have a finite one."""
  found = [row for row in rows if row.get(name) is not None]
  found = [row for row in found if math.isfinite(row[name])]
  return [row["step"] for row in found], [row[name] for row in found]
