"""Runs a split through inference and counts one exact confusion matrix."""

from collections.abc import Callable
from collections.abc import Iterator
import time
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from ctxseg_jax import errors
from ctxseg_jax.evaluation import classify
from ctxseg_jax.evaluation import inference
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation.tasks import TASKS


def evaluate(
    predictor: inference.Predictor | classify.Predictor,
    variables: Any,
    source: Any,
    spec: Any,
    *,
    split: str,
    protocol: str | None = None,
    keep: tuple[int, ...] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, Any], dict[int, tuple]] | None:
  """Evaluates a network on every image of a split, each exactly once.

  Labels keep their own size; predictions are made at it. The same integers
  come out whatever the number of devices and processes, because a device
  always works on batches of one size and padding carries the ignored label.

  Args:
    predictor: Makes class maps, or classes.
    variables: Variables of the model, replicated over the predictor's mesh.
    source: Examples by index: `image`, `label`, `name`; and `sizes()`.
    spec: The data set's `DatasetSpec`.
    split: Name of the split, for the report.
    protocol: One of the task's `protocols`; None is the default.
    keep: Indices of images to return with labels and predictions.
    should_stop: Asked between batches; True abandons the evaluation.

  Returns:
    The report (see `_report`) and, by index, (image, label, prediction,
    name) of the images to keep that this process has seen; None if it was
    abandoned.

  Raises:
    UserError: The split has no labelled pixel, or a label is no class.
  """
  start = time.perf_counter()
  count = _make_count(predictor.mesh, spec.num_classes, spec.ignore_label)
  total = np.zeros((spec.num_classes, spec.num_classes), np.int64)
  labelled = 0
  num_images = 0
  kept = {}
  pending = None
  for batch in _batches(predictor, source, spec):
    if should_stop():
      return None
    predictions = predictor.predict(
        variables, batch["images"], batch["key"], batch["put"]
    )
    counted = count(predictions, batch["put"](batch["labels"]))
    if pending is not None:
      # One batch late, so that reading images overlaps with the device.
      total += np.asarray(pending[0], np.int64)
      labelled += int(pending[1])
    pending = counted
    num_images += batch["num_images"]
    wanted = [i for i, n in enumerate(batch["local"]) if n in keep]
    if wanted:
      local = _local_rows(predictions)
      for i in wanted:
        example = batch["examples"][i]
        kept[int(batch["local"][i])] = (
            example["image"],
            example["label"],
            local[(i, *map(slice, example["label"].shape))],
            str(example["name"]),
        )
  if pending is not None:
    total += np.asarray(pending[0], np.int64)
    labelled += int(pending[1])
  if num_images != len(source) or labelled != total.sum():
    raise AssertionError(
        f"{num_images} of {len(source)} images and {total.sum()} of"
        f" {labelled} labelled pixels were counted."
    )
  if not labelled:
    raise errors.UserError(
        f"{spec.name}, split {split!r}: no labelled pixels in"
        f" {num_images} images; every label is {spec.ignore_label} (ignored)"
    )
  seconds = time.perf_counter() - start
  report = _report(total, protocol, spec)
  report |= {
      "num_images": num_images,
      "split": split,
      "procedure": predictor.settings.describe(),
      "padded_to_multiples_of": predictor.multiple,
      "compilations": predictor.compilations(),
      "images_per_second": num_images / seconds,
  }
  return report, kept


def _report(total, protocol, spec):
  """Returns the scores with the matrix and the names they belong to."""
  task = TASKS[spec.task]
  if protocol is None and task.protocols:
    protocol = task.protocols[0]
  report = {
      name: value.tolist() if isinstance(value, np.ndarray) else value
      for name, value in task.scores(total, protocol).items()
  }
  return report | {
      "confusion_matrix": total.tolist(),
      "dataset": spec.name,
      "task": spec.task,
      "class_names": list(spec.class_names),
      "references": dict(spec.references),
  }


def summary(report: dict[str, Any]) -> str:
  """Returns one line: the score and what belongs beside it."""
  how = report["procedure"]
  if "protocol" in report:
    how += (
        f"; protocol {report['protocol']}, {report['num_classes_averaged']}"
        " classes averaged"
    )
  text = (
      f"{_task(report).headline(report)} on {report['num_images']} images of"
      f" {report['dataset']} {report['split']} ({how})"
  )
  for name, value in report["references"].items():
    text += f"; {name}: {100 * value:.2f}"
  return text


def describe(report: dict[str, Any]) -> str:
  """Returns the table of classes with the summary below it."""
  table = _task(report).table(report)
  return f"{table}\nstep {report['step']}: {summary(report)}"


def _task(report):
  # Reports of earlier versions name none.
  return TASKS[report.get("task", "segmentation")]


def _batches(predictor, source, spec) -> Iterator[dict[str, Any]]:
  """Yields this process's share of every batch, padded to one size."""
  mesh = predictor.mesh
  sharding = NamedSharding(mesh, P(mesh.axis_names[0]))
  processes = jax.process_count()
  batch_size = predictor.settings.batch_size_per_device * mesh.size
  share = batch_size // processes
  first = jax.process_index() * share

  def put(array):
    return jax.make_array_from_process_local_data(
        sharding, np.ascontiguousarray(array)
    )

  groups = predictor.plan(source.sizes())
  logging.info(
      "Evaluating %d images of %s on %d padded shapes.",
      len(source),
      spec.name,
      len(groups),
  )
  for key, members in groups:
    shape = spec.label_shape(key[0])
    for at in range(0, len(members), batch_size):
      batch = members[at : at + batch_size]
      local = batch[first : first + share]
      examples = [source[int(i)] for i in local]
      labels = np.full((share, *shape), spec.ignore_label, np.uint8)
      images = []
      for row, example in enumerate(examples):
        label = example["label"]
        spec.check_label(label, example["name"])
        labels[(row, *map(slice, label.shape))] = label
        images.append(example["image"])
      while len(images) < share:
        # Any image will do: its label is all ignored.
        images.append(np.zeros((1, 1, 3), np.uint8))
      yield {
          "key": key,
          "put": put,
          "images": images,
          "labels": labels,
          "examples": examples,
          "local": local,
          "num_images": len(batch),
      }


def _make_count(mesh, num_classes, ignore_label):
  axis = mesh.axis_names[0]

  def count(predictions, labels):
    confusion = metrics.confusion_matrix(
        labels, predictions, num_classes, ignore_label
    )
    labelled = jnp.sum(labels != ignore_label, dtype=jnp.int32)
    return jax.lax.psum((confusion, labelled), axis)

  return jax.jit(
      jax.shard_map(
          count,
          mesh=mesh,
          in_specs=(P(axis), P(axis)),
          out_specs=(P(), P()),
      )
  )


def _local_rows(array: jax.Array) -> np.ndarray:
  """Returns the rows of a sharded array that this process holds, in order."""
  shards = sorted(array.addressable_shards, key=lambda s: s.index[0].start or 0)
  return np.concatenate([np.asarray(s.data) for s in shards])
