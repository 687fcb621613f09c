"""Runs a split through inference and counts one exact confusion matrix."""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import dataclasses
import math
import re
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import progress
from ctxseg_jax import schema
from ctxseg_jax.data import records
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import batching
from ctxseg_jax.evaluation import counting
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation import tables
from ctxseg_jax.evaluation import tasks
from ctxseg_jax.evaluation.tasks import TASKS


def evaluate(
    predictor: batching.Predictor,
    variables: Any,
    source: records.Source,
    spec: spec_lib.DatasetSpec,
    *,
    split: str,
    protocol: str | None = None,
    keep: tuple[int, ...] = (),
    num_extremes: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    report_progress: progress.Report | None = None,
) -> tuple[dict[str, Any], dict[int, tuple]] | None:
  """Evaluates a network on every image of a split, each exactly once.

  Labels keep their own size; predictions are made at it. The same integers
  come out whatever the number of devices and processes, because a device
  always works on batches of one size and padding carries the ignored label.

  Args:
    predictor: Makes class maps, or classes.
    variables: Variables of the model.
    source: The examples of the split; read on threads.
    spec: The data set.
    split: Its name, for the report.
    protocol: One of the task's `protocols`; None is the default.
    keep: Indices of images to return with labels and predictions.
    num_extremes: How many of the images that were predicted worst, and how many
      of the best, to return as well; of those that this process has seen.
    should_stop: Asked between batches; True abandons the evaluation.
    report_progress: Called after each batch; None logs now and then.

  Returns:
    The report and, by index, (image, label, prediction, name) of the images to
    keep that this process has seen; None if it was abandoned.

  Raises:
    UserError: The split has no labelled pixel, or a label is no class.
  """
  report_progress = report_progress or progress.log_lines("evaluating")
  start = time.perf_counter()

  def load(i):
    example = source[i]
    spec.check_label(example["label"], str(example["name"]))
    return example

  task = TASKS[spec.task]
  count = counting.make_count(
      predictor.mesh, spec.num_classes, spec.ignore_label
  )
  tally = counting.Tally(spec.num_classes, len(source), task.image_scores)
  names = {}
  kept = {}
  num_images = 0
  previous = None

  def finish(batch, counted):
    tally.add(batch.members, *counted)
    indices = batch.indices.tolist()
    names.update(zip(indices, _names(batch), strict=True))
    scores = tally.scores[task.rank]
    wanted = {*keep, *_extremes([*kept, *indices], scores, num_extremes)}
    if not wanted.isdisjoint(indices):
      kept.update(zip(indices, _examples(batch), strict=True))
    for i in kept.keys() - wanted:
      del kept[i]

  with contextlib.closing(
      predictor.batches(variables, source.sizes(), load)
  ) as batches:
    for batch in batches:
      if should_stop():
        return None
      labels = predictor.put(_stack_labels(batch, spec))
      counted = count(batch.outputs, batch.confidences, labels)
      # One batch late, so that the host works ahead of the devices.
      if previous is not None:
        finish(*previous)
      previous = (batch, counted)
      num_images += batch.num_images
      report_progress(num_images, len(source))
  finish(*previous)
  confusion = tally.totals[:-1].reshape(2 * [spec.num_classes])
  labelled = tally.totals[-1]
  if num_images != len(source) or labelled != confusion.sum():
    raise AssertionError(
        f"{num_images} of {len(source)} images and {confusion.sum()} of"
        f" {labelled} labelled pixels were counted."
    )
  if not labelled:
    raise errors.UserError(
        f"{spec.name}, split {split!r}: no labelled pixels in"
        f" {len(source)} images; every label is {spec.ignore_label} (ignored)"
    )
  seconds = time.perf_counter() - start
  logging.info(
      "Evaluated %d images of %s in %.1f s.", num_images, spec.name, seconds
  )
  if task.protocols:
    protocol = protocol or task.protocols[0]
  scores = task.scores(confusion, protocol)
  extra = metrics.extra_figures(spec.extra_figures, scores, confusion)
  report = {
      **scores,
      **extra,
      "confusion_matrix": confusion,
      "dataset": spec.name,
      "task": spec.task,
      "class_names": list(spec.class_names),
      "palette": [list(color) for color in spec.palette],
      "calibration": metrics.calibration(tally.levels),
      "images": {
          # Another process may have seen it.
          "name": [names.get(i, f"#{i}") for i in range(len(source))],
          **{name: x.round(5) for name, x in tally.scores.items()},
      },
      "image_sizes": _describe_sizes(source.sizes()),
      "num_parameters": sum(
          x.size for x in jax.tree.leaves(variables["params"])
      ),
      "references": dict(spec.references.get(split.split("[")[0], {})),
      "num_images": num_images,
      "split": split,
      "procedure": predictor.settings.describe(),
      "padded_to_multiples_of": predictor.multiple,
      "tiled": predictor.tiled(),
      "compilations": predictor.compilations(),
      "images_per_second": num_images / seconds,
  }
  return _plain(report), kept


def _stack_labels(batch, spec):
  """Returns this process's labels, padded as the predictions are."""
  shape = (batch.share, *spec.label_shape(batch.canvas))
  labels = np.full(shape, spec.ignore_label, np.uint8)
  for row, example in enumerate(batch.examples):
    label = example["label"]
    labels[(row, *map(slice, label.shape))] = label
  return labels


def _examples(batch):
  """Returns (image, label, prediction, name) of this process's images."""
  rows = zip(batch.examples, _names(batch), batch.results(), strict=True)
  return [(x["image"], x["label"], found, name) for x, name, found in rows]


def _names(batch):
  return [str(example["name"]) for example in batch.examples]


def _extremes(indices, scores, count):
  """Returns those of some images with the lowest and the highest scores."""
  scored = {i for i in indices if not math.isnan(scores[i])}
  ranked = sorted(scored, key=lambda i: (scores[i], i))
  return ranked[:count] + ranked[max(len(ranked) - count, 0) :]


def _describe_sizes(sizes):
  """Returns e.g. `360x480` or `375x500 to 500x500`, by number of pixels."""
  ordered = sizes[np.argsort(np.prod(sizes, axis=1, dtype=np.int64))]
  ends = ["x".join(map(str, size)) for size in (ordered[0], ordered[-1])]
  return " to ".join(dict.fromkeys(ends))


def _plain(value):
  """Returns lists in place of arrays."""
  if isinstance(value, Mapping):
    return {name: _plain(item) for name, item in value.items()}
  return value.tolist() if isinstance(value, np.ndarray) else value


def summary(report: Mapping[str, Any]) -> str:
  """Returns one line: the score and what belongs beside it."""
  how = report["procedure"]
  if "protocol" in report:
    how += (
        f"; protocol {report['protocol']}, {report['num_classes_averaged']}"
        " classes averaged"
    )
  if report.get("tiled"):
    how += f"; in tiles: {', '.join(report['tiled'])}"
  figures = ", ".join(
      f"{title} {tables.percent(report[name])}"
      for name, title in tasks.figures(report).items()
  )
  text = (
      f"{figures} on {report['num_images']} images of {report['dataset']}"
      f" {report['split']} ({how})"
  )
  for name, value in report["references"].items():
    text += f"; {name}: {tables.percent(value)}"
  return text


def describe(report: Mapping[str, Any]) -> str:
  """Returns the table of classes with the summary below it."""
  table = TASKS[report["task"]].table(report)
  return f"{table}\nstep {report['step']}: {summary(report)}"


def change(
    usual: tasks.Settings,
    spec: spec_lib.DatasetSpec,
    flags: Mapping[str, Any],
    crop_size: tuple[int, int],
) -> tasks.Settings:
  """Returns settings with what flags change.

  Args:
    usual: The settings.
    spec: The data set.
    flags: Text, a list of texts, a bool, or None for what is not given, by name
      of a setting and of `protocol`, which is only checked here.
    crop_size: (H, W) of windows where neither says it.

  Raises:
    UserError: A flag of another task, or a value that it does not take.
  """
  options, protocols = schema.options(type(usual)), TASKS[spec.task].protocols
  changes = {}
  for name, value in flags.items():
    if value is None:
      continue
    if name not in options and not (name == "protocol" and protocols):
      raise errors.UserError(
          f"--{name}: has no meaning for the {spec.task} of {spec.name}; leave"
          " it out"
      )
    if name == "protocol":
      schema.lookup(dict.fromkeys(protocols), value, f"--{name}")
      continue
    text = "".join(f"{x}," for x in value) if type(value) is list else value
    kind = options[name].annotation
    changes[name] = schema.convert(schema.Text(text), kind, f"--{name}")
  if changes.get("mode") == "slide" and usual.crop_size is None:
    changes.setdefault("crop_size", crop_size)
  try:
    return dataclasses.replace(usual, **changes)
  except ValueError as e:
    raise errors.UserError(f"--{e}") from e


def report_name(
    step: int, usual: Mapping[str, Any], used: Mapping[str, Any]
) -> str:
  """Returns a file name that tells reports of one step apart.

  Args:
    step: The step that was evaluated.
    usual: What the evaluations of the training depend on, by name.
    used: The same for this one; what differs is in the name, such as
      `600_flip-True_split-test`.
  """
  words = [str(step)]
  for name, value in sorted(used.items()):
    if value != usual[name]:
      values = value if isinstance(value, (tuple, list)) else [value]
      text = f"{name}-{','.join(map(str, values))}"
      words.append(re.sub(r"[^\w.,%-]+", "+", text))
  return "_".join(words)
