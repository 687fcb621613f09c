"""What is said of an exported network: a model card, and the same as JSON."""

from collections.abc import Mapping
from importlib import metadata
import os
from typing import Any

import jax
import numpy as np

import ctxseg_jax
from ctxseg_jax import experiment
from ctxseg_jax.deployment import formats
from ctxseg_jax.deployment import loaders
from ctxseg_jax.evaluation import evaluate
from ctxseg_jax.evaluation import tables
from ctxseg_jax.training import workdir as workdir_lib

# What an evaluation says of itself beside its scores.
_CONDITIONS = (
    "dataset",
    "split",
    "num_images",
    "procedure",
    "protocol",
    "step",
)


def describe(
    trained: experiment.Trained,
    checks: Mapping[str, Mapping[str, Any]],
    refused: Mapping[str, str],
) -> dict[str, Any]:
  """Returns what `model.json` holds.

  Args:
    trained: The network.
    checks: By format, what its check found, with the `"name"` of its file and
      the `"image_size"` that it takes, (H, W) or "any".
    refused: Why other formats are left out.
  """
  run, spec = trained.run, trained.spec
  is_of_maps = spec.task == "segmentation"
  scores = trained.scores
  packages = ["flax", "jax", "jax2onnx", "numpy", "onnxruntime"]
  maps = ["batch", "height", "width"] if is_of_maps else ["batch"]
  classes = "uint8" if spec.num_classes <= 256 else "uint16"
  return {
      "task": spec.task,
      "class_names": spec.class_names,
      "palette": spec.palette,
      "ignore_label": spec.ignore_label if is_of_maps else None,
      "input": {
          "name": "images",
          "dtype": "uint8",
          "layout": ["batch", "height", "width", "RGB"],
      },
      "outputs": {
          "classes": {"dtype": classes, "layout": maps},
          "probabilities": {"dtype": "float32", "layout": [*maps, "class"]},
      },
      "preprocessing_inside": {
          "mean": run.data.mean,
          "std": run.data.std,
          "procedure": run.settings.describe(),
      },
      "files": checks,
      "left_out": refused,
      "step": trained.step,
      "evaluation": {
          key: scores[key]
          for key in (*_CONDITIONS, *trained.task.figures, "iou")
          if key in scores
      },
      "num_parameters": _num_parameters(trained),
      "init_from": _source(trained),
      "config": {k: run.config[k] for k in ("model", "loss", "optim")},
      "versions": {"ctxseg_jax": ctxseg_jax.__version__}
      | {name: _version(name) for name in packages if _version(name)},
  }


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _num_parameters(trained: experiment.Trained) -> int:
  return sum(x.size for x in jax.tree.leaves(trained.variables["params"]))


def _source(trained: experiment.Trained) -> dict[str, str] | None:
  init_from = trained.run.init_from
  if init_from is None:
    return None
  # Not the path: a card is passed on, and it names a user's folders.
  file = os.path.basename(init_from.path.rstrip(os.sep))
  return {"source": init_from.source, "file": file}


def write(trained: experiment.Trained, model: Mapping[str, Any]) -> str:
  """Returns the model card, in Markdown; `model` is what `describe` does."""
  config, spec = trained.config, trained.spec
  section = config["model"]
  title = f"{section['head']['name']} on {section['backbone']['name']}"
  lines = [
      f"# {title}, {spec.name}",
      "",
      f"A network of ctxseg_jax {ctxseg_jax.__version__} for"
      f" {spec.task}: head `{section['head']['name']}`, backbone"
      f" `{_backbone(section['backbone'])}`,"
      f" {model['num_parameters'] / 1e6:.2f} M parameters, step"
      f" {trained.step}. `model.json` has what is said here and every option"
      " of the network.",
      "",
      "## Files",
      "",
      "| file | format | images | largest difference | time of one image |",
      "| --- | --- | --- | --- | --- |",
      *_file_rows(model),
      "",
      *(
          f"{kind} is left out: {why}."
          for kind, why in model["left_out"].items()
      ),
      "",
      "Probabilities of each file, loaded in a process without ctxseg_jax,"
      " differ by so much from those of ctxseg_jax. Times are medians on the"
      " CPU of the exporting machine"
      f" ({os.cpu_count()} cores).",
      "",
      "## Use",
      "",
      *_use(trained, model),
      "## Classes",
      "",
      "| id | class | RGB |",
      "| --- | --- | --- |",
      *_class_rows(spec),
      "",
      "## Evaluation",
      "",
      *_evaluations(trained),
      "## Training",
      "",
      *_training(trained),
      "",
      "## Licences",
      "",
      *_licences(trained),
  ]
  return "\n".join(lines) + "\n"


def _backbone(section):
  details = [section.get("variant"), section.get("depth")]
  return " ".join(str(x) for x in (section["name"], *details) if x)


def _file_rows(model):
  for kind, file in model["files"].items():
    size = file["image_size"]
    size = "of any size" if size == "any" else f"{size[1]}x{size[0]} (W x H)"
    yield (
        f"| `{file['name']}`, {file['bytes'] / 1e6:.1f} MB | {kind} |"
        f" batches {size} | {file['difference']:.1e} |"
        f" {file['milliseconds']:.0f} ms, ctxseg_jax"
        f" {file['milliseconds_of_ctxseg_jax']:.0f} ms |"
    )


def _use(trained, model):
  """Yields how to run each file."""
  run, spec = trained.run, trained.spec
  is_of_maps = spec.task == "segmentation"
  yield (
      "In: RGB, uint8 `[B, H, W, 3]`, 0 to 255, not normalised: mean"
      f" {_numbers(run.data.mean)} and standard deviation"
      f" {_numbers(run.data.std)} are inside, and so is what evaluations do"
      f" ({run.settings.describe()}). Out: `classes`"
      f" `{'[B, H, W]' if is_of_maps else '[B]'}` and float32 `probabilities`"
      f" `{'[B, H, W, C]' if is_of_maps else '[B, C]'}`."
  )
  if is_of_maps:
    yield ""
    yield (
        "Probabilities take 4 bytes for every pixel and class. A program that"
        " asks for `classes` alone does not keep them: in JAX"
        ' `jax.jit(lambda x: exported.call(x)["classes"])`, in onnxruntime'
        ' `session.run(["classes"], ...)`.'
    )
  for kind, file in model["files"].items():
    size = file["image_size"]
    yield ""
    if kind == "StableHLO":
      yield (
          f"**StableHLO** (`pip install jax flatbuffers`), for"
          f" {', '.join(formats.PLATFORMS)}; compiled anew for every shape:"
      )
    else:
      yield "**ONNX** (`pip install onnxruntime`):"
    yield ""
    resized = "" if size == "any" else f".resize(({size[1]}, {size[0]}))"
    yield f"```python\n{loaders.CODE[kind]}```"
    yield ""
    shapes = ("[H, W]", "[H, W, C]") if is_of_maps else ("one id", "[C]")
    use = loaders.USE.format(
        resized=resized, classes=shapes[0], probabilities=shapes[1]
    )
    yield f"```python\n{use}```"
  yield ""


def _class_rows(spec):
  colors = spec.palette or [()] * spec.num_classes
  for i, (name, color) in enumerate(zip(spec.class_names, colors, strict=True)):
    # A bar would end the cell.
    name = name.replace("|", "\\|")
    yield f"| {i} | {name} | {' '.join(map(str, color))} |"


def _evaluations(trained):
  """Yields the scores of the step, those of the training in full."""
  folder = workdir_lib.Workdir(trained.workdir).evaluations
  paths = sorted(folder.glob(f"{trained.step}_*.json"))
  if not trained.scores and not paths:
    yield "This step was not evaluated."
    yield ""
    return
  figures = trained.task.figures
  titles = ["data set", "split", "images", "procedure", "protocol"]
  titles += figures.values()
  yield f"| {' | '.join(titles)} |"
  yield "| --- " * len(titles) + "|"
  reports = [trained.scores] * bool(trained.scores)
  reports += [workdir_lib.read_evaluation(path) for path in paths]
  for report in reports:
    cells = [report[x] for x in ("dataset", "split", "num_images", "procedure")]
    cells.append(report.get("protocol") or "-")
    cells += [tables.percent(report.get(x)) for x in figures]
    yield f"| {' | '.join(map(str, cells))} |"
  yield ""
  yield f"In full, {reports[0]['split']}:"
  yield ""
  yield f"```\n{evaluate.describe({'step': trained.step} | reports[0])}\n```"
  yield ""


def _training(trained):
  config = trained.config
  data, optim = config["data"], config["optim"]
  schedule = optim["schedule"]["name"]
  terms = [f"{x['loss']} ({x['weight']:g})" for x in config["loss"].values()]
  rows = {
      "data": f"{trained.spec.name}, split {data['train_split']}",
      "crops": "{}x{} (H x W)".format(*data["crop_size"]),
      "steps": f"{config['total_steps']} of {config['batch_size']} images",
      "optimiser": (
          f"{optim['name']}, rate {optim['learning_rate']:g}, schedule"
          f" {schedule}"
      ),
      "average of the parameters": (
          f"decay {optim['ema_decay']:g}; exported"
          if optim["ema_decay"]
          else "none"
      ),
      "loss": ", ".join(terms),
      "seed": str(config["seed"]),
  }
  yield "| | |"
  yield "| --- | --- |"
  for name, value in rows.items():
    yield f"| {name} | {value} |"


def _licences(trained):
  source = _source(trained)
  if source is None:
    yield "- Weights: trained from random values."
  else:
    file = f", file `{source['file']}`" if source["file"] else ""
    yield (
        f"- Weights: the training started from weights of"
        f" `{source['source']}`{file}. Their licence, and that of the data they"
        " were trained on, may bind this network."
    )
  yield (
      f"- Data: trained on `{trained.spec.name}`; its terms of use may bind"
      " this network."
  )
  yield (
      "- The code of ctxseg_jax is under Apache-2.0. It says nothing about"
      " weights."
  )


def _numbers(values) -> str:
  return ", ".join(f"{x:g}" for x in np.asarray(values).tolist())
