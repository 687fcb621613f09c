"""Tells the size of a config's network: parameters and multiply-accumulates.

  python -m ctxseg_jax.describe --config configs/quickstart.py
  python -m ctxseg_jax.describe --config C --size 513,513 --depth 3
  python -m ctxseg_jax.describe --config C --json
  python -m ctxseg_jax.describe --options

Nothing is computed and no data set is read: the network is only traced.
--options lists every option that a config can have.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import re
import textwrap
from typing import Any

from absl import flags
import flax
import jax
import jax.numpy as jnp

from ctxseg_jax import columns
from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import options
from ctxseg_jax.models import macs
from ctxseg_jax.models import network

_FIGURES = ("parameters", "macs", "conv_macs")

_PARAMETERS = (
    "Parameters are the trained ones, of training-only parts too; running"
    " statistics and other state are not among them."
)


def describe(
    model: network.SegmentationModel,
    size: Sequence[int],
    *,
    train_size: Sequence[int] | None = None,
    depth: int = 2,
) -> dict[str, Any]:
  """Counts the parameters and the multiply-accumulates of a network.

  Args:
    model: The network, built without `bn_axis_name`.
    size: (H, W) of the image.
    train_size: (H, W) of the images it is trained on, which parameters may
      depend on; None is `size`.
    depth: Levels of modules in `layers`: 1 is the parts, backbone and heads; 2
      is the modules in them. What is further down adds to its level.

  Returns:
    `size`; `output_stride`, of the last stage (None if its size does not tell);
    `outputs`, shapes without the batch; `parameters`, `macs` and `conv_macs`
    (convolutions and matrix products alone); the same three `..._by_part`;
    `macs_by_operation`; `layers`, each with its `name` and the three figures;
    `training_only`, the parts that evaluation does not run, whose MACs are in
    no sum; `convention` and `notes`, which belong beside the figures.

  Raises:
    UserError: The network refuses images of a size.
  """
  train_size = train_size or size
  with _refusals(train_size):
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False),
        _images(train_size),
    )
  params = variables["params"]
  with _refusals(size):
    counts, outputs, notes = macs.count(
        lambda v, x: model.apply(v, x, train=False), variables, _images(size)
    )
    run = {path[0] for path, _ in counts if path}
    training_only = [name for name in params if name not in run]
    all_counts = dict(counts)
    if training_only:
      all_counts |= _training_counts(model, variables, size, training_only)
    stride = _output_stride(model, variables, size)
  by_part = _fold(all_counts, params, 1)
  by_operation = dict.fromkeys(macs.KINDS, 0)
  for (_, kind), work in counts.items():
    by_operation[kind] += work
  return {
      "size": list(size),
      "output_stride": stride,
      "outputs": {name: list(x.shape[1:]) for name, x in outputs.items()},
      "parameters": sum(x["parameters"] for x in by_part.values()),
      "macs": sum(by_operation.values()),
      "conv_macs": sum(by_operation[kind] for kind in macs.PRODUCTS),
      **{
          f"{figure}_by_part": {name: x[figure] for name, x in by_part.items()}
          for figure in _FIGURES
      },
      "macs_by_operation": by_operation,
      "training_only": training_only,
      "layers": [
          {"name": name, **figures}
          for name, figures in _fold(all_counts, params, depth).items()
      ],
      "convention": f"{macs.CONVENTION} {_PARAMETERS}",
      "notes": notes,
  }


@contextlib.contextmanager
def _refusals(size):
  """Turns what a network raises for images of a size into a `UserError`."""
  try:
    yield
  # A parameter of another size is an error of Flax.
  except (ValueError, flax.errors.FlaxError) as e:
    reason = str(e).partition("\n")[0]
    raise errors.UserError(
        f"the network refuses images of {size[0]},{size[1]} (H,W): {reason}"
    ) from e


def _images(size):
  return jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)


def _training_counts(model, variables, size, parts):
  """Returns what the named parts do in the forward pass of a training step."""
  counts, _, _ = macs.count(
      lambda v, x, key: model.apply(
          v, x, train=True, mutable=True, rngs={"dropout": key}
      ),
      variables,
      _images(size),
      jax.eval_shape(lambda: jax.random.key(0)),
  )
  return {
      at: work for at, work in counts.items() if at[0] and at[0][0] in parts
  }


def _output_stride(model, variables, size):
  features = jax.eval_shape(
      lambda v, x: model.apply(
          v, x, method=lambda model, x: model.backbone(x, train=False)
      ),
      variables,
      _images(size),
  )
  last = features[max(name for name in features if name.startswith("stage"))]
  # Sizes are rounded up, at every halving. A small map fits several strides,
  # that of a backbone which pads its images none.
  fitting = [
      stride
      for stride in (1, 2, 4, 8, 16, 32)
      if tuple(-(-n // stride) for n in size) == last.shape[1:3]
  ]
  return fitting[0] if len(fitting) == 1 else None


def _fold(counts, params, depth):
  """Sums the figures of modules into the first levels of their paths."""
  rows = {}

  def add(path, figure, value):
    name = "/".join(path[:depth]) or "model"
    rows.setdefault(name, dict.fromkeys(_FIGURES, 0))[figure] += value

  for (path, kind), work in counts.items():
    add(path, "macs", work)
    if kind in macs.PRODUCTS:
      add(path, "conv_macs", work)
  for path, leaf in flax.traverse_util.flatten_dict(params).items():
    add(path[:-1], "parameters", leaf.size)
  return rows


def table(report: Mapping[str, Any]) -> str:
  """Returns a report of `describe` as text, with what its figures mean."""
  # One unit for all rows, so that they can be compared at a glance.
  unit, scale = ("G", 1e9) if report["macs"] >= 1e10 else ("M", 1e6)

  def row(name, figures):
    sums = [f"{figures[key] / scale:,.3f}" for key in _FIGURES[1:]]
    return (name, f"{figures['parameters']:,}", *sums)

  rows = [("", "parameters", f"MACs, {unit}", "conv and matmul")]
  for part in report["parameters_by_part"]:
    note = " (training only)" if part in report["training_only"] else ""
    figures = {key: report[f"{key}_by_part"][part] for key in _FIGURES}
    rows.append(row(part + note, figures))
    layers = [x for x in report["layers"] if x["name"].split("/")[0] == part]
    for layer in layers if len(layers) > 1 else ():
      name = layer["name"].partition("/")[2] or "(outside of these)"
      rows.append(row(f"  {name}", layer))
  rows.append(row("total", report))

  def sizes(shape):
    return "x".join(map(str, shape))

  facts = [f"Input {sizes(report['size'])}"]
  if report["output_stride"]:
    facts.append(f"output stride {report['output_stride']}")
  outputs = [f"{name} {sizes(x)}" for name, x in report["outputs"].items()]
  facts.append(f"outputs {', '.join(outputs)}")
  work = [
      f"{kind} {done / scale:,.3f}"
      for kind, done in report["macs_by_operation"].items()
      if done
  ]
  text = [f"{'; '.join(facts)}.", f"MACs, {unit}: {', '.join(work)}."]
  if report["training_only"]:
    text.append(
        f"The MACs of {', '.join(report['training_only'])} are those of the"
        " forward pass of training, and not in the total."
    )
  text += [f"Note: {note}." for note in report["notes"]]
  text.append(report["convention"])
  lines = columns.align(rows, "<>>>", total=True)
  return "\n".join(lines + [x for y in text for x in textwrap.wrap(y, 80)])


def parse_size(text: str) -> tuple[int, int]:
  """Returns (H, W) of "H,W"; a `UserError` says what else it is."""
  match = re.fullmatch(r"0*([1-9]\d*),0*([1-9]\d*)", text)
  if match is None:
    raise errors.UserError(
        f"--size: expected H,W, two positive integers, got {text!r}"
    )
  return tuple(map(int, match.groups()))


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  # Tracing takes no accelerator away from a run, nor waits for one.
  jax.config.update("jax_platforms", "cpu")
  if flags.FLAGS.options:
    print(options.page() if flags.FLAGS.markdown else options.text())
    return
  if flags.FLAGS.config is None:
    raise errors.UserError("--config: missing; or pass --options")
  run = experiment.parse(flags.FLAGS.config)
  train_size = run.augmentation.crop_size
  size = flags.FLAGS.size
  report = describe(
      experiment.build_model(run.config["model"], run.spec.num_classes),
      train_size if size is None else parse_size(size),
      train_size=train_size,
      depth=flags.FLAGS.depth,
  )
  print(json.dumps(report, indent=2) if flags.FLAGS.json else table(report))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  commands.define_config()
  flags.DEFINE_string("size", None, "H,W of the image; default: crop size.")
  flags.DEFINE_integer(
      "depth", 2, "Levels of modules to list; 1: parts.", lower_bound=1
  )
  flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
  flags.DEFINE_bool("options", False, "List every option of a config.")
  flags.DEFINE_bool("markdown", False, "With --options: as docs/options.md.")
  commands.run(main)
