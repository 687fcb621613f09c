"""Compares every context head on context scenes: one command, one table.

  python -m benchmarks.context_scenes

Trains each variant of configs/context_scenes.py with each seed (a run that is
finished is not run again, one that was stopped goes on) and swaps the cue
under it, counts parameters and multiply-accumulates, times the training steps
side by side, and writes the table in docs/context_scenes.md between its two
markers and the plot docs/context_scenes_heads.png. With `--variants` the other
rows of the table stay as they are.
"""

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from typing import Any

from absl import flags

from benchmarks import page
from configs import context_scenes as config_lib
from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax.data.datasets import context_scenes as scenes

CONFIG = "configs/context_scenes.py"
PAGE = "context_scenes.md"
# The best mIoU, in percent, of a predictor that sees 81x81 pixels.
BOUND = 100 * scenes.window_bound()
_STEPS_PER_ROUND = 10


@dataclasses.dataclass
class Row:
  """What is reported of a variant.

  Attributes:
    name: The variant.
    miou: mIoU of each seed's last step, in percent; None if it diverged.
    right: Object pixels right under the swapped cues, in percent.
    parameters: Trained parameters, those of training-only parts too.
    macs: Multiply-accumulates of one image's prediction, in millions.
    images_per_second: Of the training step, median over the rounds; None if
      it was not timed.
  """

  name: str
  miou: list[float | None]
  right: list[float | None]
  parameters: int
  macs: int
  images_per_second: float | None

  @property
  def mean(self) -> float:
    """Mean mIoU of the seeds that did not diverge."""
    finite = [m for m in self.miou if m is not None]
    return statistics.mean(finite) if finite else float("nan")

  @property
  def spread(self) -> float | None:
    """Largest minus smallest mIoU; None of fewer than two."""
    finite = [m for m in self.miou if m is not None]
    return max(finite) - min(finite) if len(finite) > 1 else None


def run(variant: str, seed: str, steps: int) -> tuple[float | None, ...]:
  """Trains a variant if need be; returns its mIoU and what is right."""
  workdir = pathlib.Path(flags.FLAGS.runs) / variant / seed
  report = workdir / "eval" / f"{steps}.json"
  swap = workdir / "cue_swap.json"
  diverged = workdir / "diverged.txt"
  if not report.exists() and not diverged.exists():
    print(f"training {variant}, seed {seed}", flush=True)
    done = _command(
        "train.py",
        f"--config={CONFIG}:{variant}",
        f"--config.seed={seed}",
        f"--config.data.data_dir={flags.FLAGS.data_dir}",
        f"--workdir={workdir}",
    )
    if done.returncode == 3:
      # A result, not a mistake: the common recipe does not suit this head.
      diverged.write_text(done.stderr.strip().splitlines()[-1] + "\n")
    elif done.returncode:
      commands.fail(
          f"{variant}, seed {seed}: {done.stderr.strip().splitlines()[-1]}",
          done.returncode,
      )
  if diverged.exists():
    return None, None
  if not swap.exists():
    done = _command(
        "-m",
        "benchmarks.cue_swap",
        f"--workdir={workdir}",
        "--checkpoint=last",
        "--num_images=64",
    )
    if done.returncode:
      commands.fail(done.stderr.strip().splitlines()[-1], done.returncode)
  swapped = json.loads(swap.read_text())
  miou = json.loads(report.read_text())["miou"]
  return 100 * miou, 100 * swapped["right"]


def _command(*arguments):
  return subprocess.run(
      [sys.executable, *arguments], capture_output=True, text=True, check=False
  )


def time_steps(configs: dict[str, Any], rounds: int) -> dict[str, float]:
  """Times the training steps of all variants, side by side.

  Args:
    configs: The config of each variant.
    rounds: In each, every variant runs a few steps; noise of the machine
      meets all of them.

  Returns:
    Images per second of each variant, the median over the rounds.
  """
  import jax
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec as P
  import numpy as np

  from ctxseg_jax import experiment
  from ctxseg_jax.training import step as step_lib

  mesh = step_lib.make_mesh()
  rng = np.random.default_rng(0)
  running = {}
  for name, config in configs.items():
    run = experiment.parse(config)
    spec = run.spec
    tx, _ = run.optimizer.make(run.total_steps)
    train_step = run.train_step(tx, mesh)
    size = (config.batch_size, *config.data.crop_size)
    batch = {
        "image": rng.integers(0, 256, (*size, 3), np.uint8),
        "label": rng.integers(0, spec.num_classes, size).astype(np.uint8),
    }
    batch = jax.device_put(batch, NamedSharding(mesh, P(step_lib.AXIS)))
    state = step_lib.run_once(
        lambda key, run=run, tx=tx: run.init_state(tx, key), jax.random.key(0)
    )
    state = jax.device_put(state, NamedSharding(mesh, P()))
    print(f"compiling {name}", flush=True)
    state, _ = train_step(state, batch, jax.random.key(1))
    running[name] = (train_step, jax.block_until_ready(state), batch)
  times = {name: [] for name in configs}
  for _ in range(rounds):
    for name, (train_step, state, batch) in running.items():
      start = time.perf_counter()
      for _ in range(_STEPS_PER_ROUND):
        state, _ = train_step(state, batch, jax.random.key(1))
      jax.block_until_ready(state)
      times[name].append(time.perf_counter() - start)
      running[name] = (train_step, state, batch)
  return {
      name: configs[name].batch_size * _STEPS_PER_ROUND / statistics.median(t)
      for name, t in times.items()
  }


def table(rows: Sequence[Row]) -> str:
  """Returns the rows as a table in Markdown, best mean first."""
  baseline = next((r.mean for r in rows if r.name == "fcn"), float("nan"))
  lines = [
      "| variant | mIoU of each seed | mean | spread | gain over FCN | cue"
      " followed | parameters | MACs | images/s |",
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
  ]
  ordered = sorted(rows, key=lambda r: -r.mean if r.mean == r.mean else 1.0)
  bound_written = False
  for row in ordered:
    if not bound_written and not row.mean > BOUND:
      lines.append(
          f"| *best possible in an 81x81 window* | | *{BOUND:.2f}* | | | *25 %*"
          " | | | |"
      )
      bound_written = True
    lines.append(
        f"| `{row.name}` | {_each(row.miou, 2, 'diverged')} | {row.mean:.2f} |"
        f" {_each([row.spread], 2)} | {row.mean - baseline:+.2f} |"
        f" {_each(row.right, 0)} % | {row.parameters:,} |"
        f" {row.macs} M | {_each([row.images_per_second], 0)} |"
    )
  return "\n".join(lines)


def read_table(text: str) -> list[Row]:
  """Returns the rows of a table, with the digits that it gives."""

  def numbers(cell):
    values = cell.removesuffix("%").split(",")
    return [
        None if v.strip() in ("-", "diverged") else float(v) for v in values
    ]

  rows = []
  for line in re.findall(r"^\| `.*\|$", text, re.M):
    name, miou, *_, right, parameters, macs, pace = (
        cell.strip() for cell in line.strip("|").split("|")
    )
    rows.append(
        Row(
            name.strip("`"),
            numbers(miou),
            numbers(right),
            int(parameters.replace(",", "")),
            int(macs.removesuffix(" M")),
            *numbers(pace),
        )
    )
  return rows


def _each(values, digits, otherwise="-"):
  return ", ".join(
      otherwise if v is None else f"{v:.{digits}f}" for v in values
  )


def plot(rows: Sequence[Row], path: pathlib.Path) -> None:
  """Draws the mIoU of every seed beside the bound."""
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  ordered = sorted(rows, key=lambda r: r.mean if r.mean == r.mean else -1.0)
  figure, axes = plt.subplots(figsize=(7, 0.3 * len(rows) + 1.2))
  for y, row in enumerate(ordered):
    finite = [m for m in row.miou if m is not None]
    if finite:
      axes.plot([min(finite), max(finite)], [y, y], color="0.7", zorder=1)
      axes.scatter(finite, [y] * len(finite), s=18, color="C0", zorder=2)
  axes.axvline(BOUND, color="C3", linestyle="--", linewidth=1)
  axes.annotate(
      "best possible in an 81x81 window",
      (BOUND + 0.8, -0.4),
      color="C3",
      fontsize=8,
      va="center",
  )
  axes.set_yticks(range(len(ordered)), [r.name for r in ordered], fontsize=8)
  axes.set_xlim(0, 100)
  axes.set_xlabel("mIoU on 256 validation images, one dot per seed")
  axes.grid(axis="x", color="0.9")
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  plt.close(figure)


def _device():
  import jax

  device = jax.devices()[0]
  if device.platform == "cpu":
    return f"{os.cpu_count()} CPU cores"
  return f"{jax.device_count()} x {device.device_kind}"


def choose(names: Sequence[str] | None) -> list[str]:
  """Returns the variants to measure: those named, or all.

  Raises:
    UserError: There is no such variant.
  """
  known = [name for name in config_lib.VARIANTS if name != "smoke"]
  for name in names or ():
    if name not in known:
      raise errors.UserError(
          f"--variants: unknown {name!r}; known: {', '.join(known)}"
      )
  return list(names or known)


def main(argv):
  del argv
  from ctxseg_jax import describe
  from ctxseg_jax import experiment

  names = choose(flags.FLAGS.variants)
  configs = {name: config_lib.get_config(name) for name in names}
  steps = config_lib.get_config().total_steps
  results = {name: [] for name in names}
  for seed in flags.FLAGS.seeds:  # All variants of one seed first.
    for name in names:
      results[name].append(run(name, seed, steps))
  speed = dict.fromkeys(names)
  if flags.FLAGS.timing_rounds:
    speed = time_steps(configs, flags.FLAGS.timing_rounds)
  rows = []
  for name, config in configs.items():
    miou, right = zip(*results[name], strict=True)
    parsed = experiment.parse(config)
    size = describe.describe(
        experiment.build_model(parsed.config["model"], parsed.spec.num_classes),
        parsed.augmentation.crop_size,
    )
    rows.append(
        Row(
            name,
            list(miou),
            list(right),
            size["parameters"],
            round(size["macs"] / 1e6),
            speed[name],
        )
    )
  given = flags.FLAGS
  measured = (
      f"{len(given.seeds)} seeds, {steps} steps of {config.batch_size} images"
  )
  if given.timing_rounds:
    measured += (
        f"; images/s: training step on {_device()}, median of"
        f" {given.timing_rounds} rounds"
    )
  output = pathlib.Path(flags.FLAGS.output)
  output.mkdir(parents=True, exist_ok=True)
  text, rows = merge(page.read_table(output / PAGE), f"{measured}.", rows)
  page.write_table(output / PAGE, text)
  plot(rows, output / "context_scenes_heads.png")
  print(text)


def merge(
    old: str, measured: str, rows: Sequence[Row]
) -> tuple[str, list[Row]]:
  """Returns a table with new rows, and the rows of it.

  Args:
    old: The table so far, and above it how its rows were measured.
    measured: How the new rows were measured.
    rows: They replace rows of the same names; all others stay.
  """
  new = {row.name for row in rows}
  kept = [row for row in read_table(old) if row.name not in new]
  if kept:
    names = ", ".join(f"`{row.name}`" for row in rows)
    before = old.partition("|")[0].strip().splitlines()
    notes = [*filter(None, (_without(new, note) for note in before))]
    measured = "\n".join([*notes, f"{names} later: {measured}"])
  rows = kept + list(rows)
  return f"{measured}\n\n{table(rows)}", rows


def _without(names, note):
  """Returns what a note says of the rows that are not among `names`."""
  of, later, how = note.partition(" later: ")
  if not later:
    return note
  rest = [x for x in of.split(", ") if x.strip("`") not in names]
  return rest and f"{', '.join(rest)}{later}{how}"


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_string("runs", "runs/context_scenes", "Work dirs go here.")
  flags.DEFINE_string("data_dir", "data", "Prepared data sets.")
  flags.DEFINE_string("output", "docs", "Folder of table and plot.")
  flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of every variant.")
  flags.DEFINE_list("variants", None, "Only these; default: all.")
  flags.DEFINE_integer(
      "timing_rounds",
      5,
      "Each times every variant once; with 0 none is timed.",
      lower_bound=0,
  )
  commands.run(main)
