"""Runs a split through inference and counts one exact confusion matrix."""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import dataclasses
import re
import time
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax import progress
from ctxseg_jax import schema
from ctxseg_jax.data import records
from ctxseg_jax.data import spec as spec_lib
from ctxseg_jax.evaluation import batching
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

  count = _make_count(predictor.mesh, spec.num_classes, spec.ignore_label)
  counted = totals = np.zeros(spec.num_classes**2 + 1, np.int64)
  num_images = 0
  kept = {}
  with contextlib.closing(
      predictor.batches(variables, source.sizes(), load)
  ) as batches:
    for batch in batches:
      if should_stop():
        return None
      earlier = counted
      labels = predictor.put(_stack_labels(batch, spec))
      counted = count(batch.outputs, labels)
      # One batch late, so that the host works ahead of the devices.
      totals = totals + np.asarray(earlier, np.int64)
      kept |= _kept(batch, keep)
      num_images += batch.num_images
      report_progress(num_images, len(source))
  totals = totals + np.asarray(counted, np.int64)
  confusion, labelled = totals[:-1].reshape(2 * [spec.num_classes]), totals[-1]
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
  task = TASKS[spec.task]
  if task.protocols:
    protocol = protocol or task.protocols[0]
  report = task.scores(confusion, protocol) | {
      "confusion_matrix": confusion,
      "dataset": spec.name,
      "task": spec.task,
      "class_names": list(spec.class_names),
      "references": dict(spec.references.get(split.split("[")[0], {})),
      "num_images": num_images,
      "split": split,
      "procedure": predictor.settings.describe(),
      "padded_to_multiples_of": predictor.multiple,
      "tiled": predictor.tiled(),
      "compilations": predictor.compilations(),
      "images_per_second": num_images / seconds,
  }
  plain = {
      name: value.tolist() if isinstance(value, np.ndarray) else value
      for name, value in report.items()
  }
  return plain, kept


def _stack_labels(batch, spec):
  """Returns this process's labels, padded as the predictions are."""
  shape = (batch.share, *spec.label_shape(batch.canvas))
  labels = np.full(shape, spec.ignore_label, np.uint8)
  for row, example in enumerate(batch.examples):
    label = example["label"]
    labels[(row, *map(slice, label.shape))] = label
  return labels


def _kept(batch, keep):
  """Returns (image, label, prediction, name) of wanted images, by index."""
  indices = batch.indices.tolist()
  if not set(indices) & set(keep):
    return {}
  rows = zip(indices, batch.examples, batch.results(), strict=True)
  return {
      i: (x["image"], x["label"], result, str(x["name"]))
      for i, x, result in rows
      if i in keep
  }


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
      for name, title in TASKS[report["task"]].figures.items()
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


def _make_count(mesh, num_classes, ignore_label):
  """Returns what counts a batch: int32 [C * C + 1], the last all labelled."""
  axis = mesh.axis_names[0]

  def count(predictions, labels):
    confusion = metrics.confusion_matrix(
        labels, predictions, num_classes, ignore_label
    )
    labelled = jnp.sum(labels != ignore_label, dtype=jnp.int32)
    return jax.lax.psum(jnp.append(confusion, labelled), axis)

  specs = dict(in_specs=(P(axis), P(axis)), out_specs=P())
  return jax.jit(jax.shard_map(count, mesh=mesh, **specs))
