"""Curves of a training."""

from collections.abc import Mapping
from collections.abc import Sequence
import io
import math
import os
from typing import Any

from matplotlib import figure

from ctxseg_jax import files


def plot_curves(
    metrics: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    references: Mapping[str, float] | None = None,
    *,
    score: str = "miou",
    title: str = "mIoU, %",
) -> None:
  """Draws loss, learning rate and a score over the steps.

  Args:
    metrics: Rows of `metrics.jsonl`: `"step"`, `"learning_rate"` and the loss
      terms `"loss/..."`; other entries and null are left out.
    evaluations: `"step"` and the score (a fraction) each.
    path: The PNG to write.
    references: Known scores (fractions) by name, drawn as dashed lines.
    score: Name of the score.
    title: What to call it.
  """
  fig = figure.Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
  grid = fig.add_gridspec(2, 2, height_ratios=(3, 1))
  loss_axes = fig.add_subplot(grid[0, 0])
  rate_axes = fig.add_subplot(grid[1, 0], sharex=loss_axes)
  score_axes = fig.add_subplot(grid[:, 1])
  _plot_losses(loss_axes, metrics)
  rate_axes.plot(*_series(metrics, "learning_rate"), color="tab:gray")
  rate_axes.set_title("learning rate", loc="left")
  rate_axes.set_ylim(bottom=0.0)
  rate_axes.set_xlabel("step")
  _plot_score(score_axes, *_series(evaluations, score), references or {})
  score_axes.set_title(title, loc="left")
  score_axes.set_xlabel("step")

  last = max((row["step"] for row in (*metrics, *evaluations)), default=1)
  for axes in (loss_axes, rate_axes, score_axes):
    axes.set_xlim(0, 1.03 * max(last, 1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  data = io.BytesIO()
  fig.savefig(data, format="png")
  files.write_atomically(path, data.getvalue())


def _plot_losses(axes, metrics):
  names = {name for row in metrics for name in row if name.startswith("loss/")}
  # The total first and in black; alone it is the only term there is.
  for name in sorted(names, key=lambda n: (n != "loss/total", n)):
    total = name == "loss/total"
    steps, values = _series(metrics, name)
    axes.plot(
        steps,
        values,
        label=name.removeprefix("loss/"),
        # A line needs two points to be seen.
        marker="." if len(steps) < 2 else None,
        color="black" if total else None,
        linewidth=1.6 if total else 1.1,
        zorder=3 if total else 2,
    )
  axes.set_title("training loss", loc="left")
  axes.set_ylim(bottom=0.0)
  axes.tick_params(labelbottom=False)
  if names:
    axes.legend(frameon=False)


def _plot_score(axes, steps, values, references):
  values = [100 * value for value in values]
  axes.plot(steps, values, marker="o", markersize=4, color="tab:blue")
  if values:
    best = max(range(len(values)), key=values.__getitem__)
    axes.annotate(
        f"{values[best]:.2f}",
        (steps[best], values[best]),
        textcoords="offset points",
        xytext=(0, 7),
        ha="center",
        color="tab:blue",
        fontweight="bold",
    )
  for i, (name, value) in enumerate(references.items()):
    axes.axhline(
        100 * value,
        label=f"{name} {100 * value:.2f}",
        color=f"C{1 + i % 9}",
        linestyle="--",
        linewidth=1.2,
    )
  if references:
    # Where a rising curve leaves room; on white, as lines may run behind it.
    axes.legend(edgecolor="none", framealpha=0.9, loc="lower right")
  heights = values + [100 * value for value in references.values()]
  axes.set_ylim(0.0, min(105.0, 1.15 * max(heights, default=100.0) + 1.0))


def _series(
    rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[list[int], list[float]]:
  found = [
      (row["step"], row[name])
      for row in rows
      if row.get(name) is not None and math.isfinite(row[name])
  ]
  return [step for step, _ in found], [value for _, value in found]
