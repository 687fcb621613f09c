r"""Tells what a training step keeps in memory, by remat and by loss.

  python -m benchmarks.memory --config configs/ade20k/encnet.py:r101 \
      --output runs/memory.json

Three figures, of the config's crop, dtype and number of classes, each per
image. *Kept for the backward pass*: what the gradient of the network needs of
its forward pass, for each `model.backbone.remat`; it is a property of the
program before it is compiled, the same on every device. *Loss*: what the
compiled gradient of upsampling and cross-entropy holds, with the logits whole
and in `num_chunks` parts. With `--peak` also the *peak of the step*: what the
whole compiled step of `train.py` holds beside its arguments, for each pair of
them, as the compiler of the device at hand plans it. Nothing is run.
"""

from collections.abc import Mapping
import copy
from typing import Any

from absl import flags

from benchmarks import networks
from benchmarks import results
from ctxseg_jax import commands

REMATS = ("none", "conv", "block")


def with_modes(
    config: Mapping[str, Any], remat: str, num_chunks: int
) -> dict[str, Any]:
  """Returns a config with a mode of remat and one of the loss."""
  config = copy.deepcopy(dict(config))
  networks.set_modes(config, remat, num_chunks)
  return config


def kept_bytes(config: Mapping[str, Any], remat: str) -> int:
  """Returns the bytes per image that the backward pass of a network needs."""
  import jax
  import jax.numpy as jnp

  from ctxseg_jax import experiment

  run = experiment.parse(with_modes(config, remat, 1))
  # Without the axis of the devices: there is no mesh here.
  model = experiment.build_model(run.config["model"], run.spec.num_classes)
  size = run.augmentation.crop_size

  def residuals(images):
    variables = model.init({"params": jax.random.key(0)}, images, train=False)
    params = variables.pop("params")

    def forward(params):
      return model.apply(
          {"params": params, **variables},
          images,
          train=True,
          mutable=[*variables, "diagnostics"],
          rngs={"dropout": jax.random.key(0)},
          upsample=False,
      )

    return jax.vjp(forward, params, has_aux=False)[1]

  # Of one image more: parameters are needed, too, but once.
  totals = []
  for number in (1, 2):
    images = jax.ShapeDtypeStruct((number, *size, 3), jnp.float32)
    kept = jax.eval_shape(residuals, images)
    totals.append(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept)))
  return totals[1] - totals[0]


def loss_bytes(config: Mapping[str, Any], num_chunks: int) -> int:
  """Returns the bytes per image of the gradient of the upsampled loss."""
  import jax
  import jax.numpy as jnp

  from ctxseg_jax import experiment
  from ctxseg_jax import losses
  from ctxseg_jax.models import resizing
  from ctxseg_jax.training import chunks

  run = experiment.parse(config)
  height, width = run.augmentation.crop_size
  common = dict(ignore_label=run.spec.ignore_label)

  def loss(logits, labels):
    if num_chunks > 1:
      total, count = chunks.upsampled_loss(
          losses.softmax_cross_entropy,
          logits,
          labels,
          num_chunks=num_chunks,
          align_corners=run.model.align_corners,
          **common,
      )
    else:
      maps = resizing.resize_bilinear(
          logits, (height, width), align_corners=run.model.align_corners
      )
      total, count = losses.softmax_cross_entropy(maps, labels, **common)
    return total / count

  number = 4
  shape = (number, -(-height // 8), -(-width // 8), run.spec.num_classes)
  logits = jax.ShapeDtypeStruct(shape, jnp.float32)
  labels = jax.ShapeDtypeStruct((number, height, width), jnp.uint8)
  compiled = jax.jit(jax.grad(loss)).lower(logits, labels).compile()
  return compiled.memory_analysis().temp_size_in_bytes // number


def peak_bytes(config: Mapping[str, Any], remat: str, num_chunks: int) -> int:
  """Returns the temporary bytes per image of the compiled training step."""
  import jax

  from ctxseg_jax import experiment
  from ctxseg_jax.planning import program

  run = experiment.parse(with_modes(config, remat, num_chunks))
  devices = jax.devices()
  lowered, *_ = program.lower(run, devices, run.batch_size)
  options = None
  if jax.default_backend() == "cpu":
    # The same buffers in a quarter of the time: only code is optimised less.
    options = {"xla_backend_optimization_level": 0}
  used = lowered.compile(options).memory_analysis().temp_size_in_bytes
  return used * len(devices) // run.batch_size


def measure(
    config: Mapping[str, Any], num_chunks: int, peak: bool
) -> dict[str, Any]:
  """Returns the three figures by mode; bytes per image."""
  found = {"kept": {x: kept_bytes(config, x) for x in REMATS}}
  found["loss"] = {n: loss_bytes(config, n) for n in (1, num_chunks)}
  if peak:
    found["peak"] = [
        {"remat": x, "num_chunks": n, "bytes": peak_bytes(config, x, n)}
        for x in REMATS
        for n in (1, num_chunks)
    ]
  return found


def to_table(found: Mapping[str, Any]) -> str:
  """Returns the table that is printed, in MiB per image."""
  rows = [
      ["kept for the backward pass", f"remat={remat}", _mib(value)]
      for remat, value in found["kept"].items()
  ]
  rows += [
      ["upsampling and cross-entropy", f"num_chunks={number}", _mib(value)]
      for number, value in found["loss"].items()
  ]
  rows += [
      [
          "peak of the step",
          f"remat={x['remat']}, num_chunks={x['num_chunks']}",
          _mib(x["bytes"]),
      ]
      for x in found.get("peak", ())
  ]
  return results.table(["of an image", "mode", "MiB"], rows)


def _mib(value):
  return f"{value / 2**20:,.0f}"


def main(argv):
  del argv
  given = flags.FLAGS
  config = given.config.to_dict()
  found = measure(config, given.num_chunks, given.peak)
  result = {"machine": results.machine(), "config": config} | found
  results.write(given.output, result)
  print(to_table(found))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  commands.define_config()
  flags.DEFINE_integer("num_chunks", 64, "Parts of the loss.", lower_bound=2)
  flags.DEFINE_bool("peak", False, "Compile whole steps: minutes each.")
  flags.DEFINE_string("output", None, "JSON file to write.")
  flags.mark_flags_as_required(["config", "output"])
  commands.run(main)
