"""Tells what a training step costs on chips that are not there, and here.

  python -m ctxseg_jax.plan --config C --topology v5e:16x16
  python -m ctxseg_jax.plan --config C --topology v5e:2x2,v5e:16x16 \
      --batch_per_chip 4
  python -m ctxseg_jax.plan --config C --measure_steps 5

The step of `train.py` is compiled for a slice of TPUs (v4, v5e, v5p, v6e) by
their own compiler, which needs no TPU (`pip install -e ".[tpu]"`); without
--topology, for the devices at hand. Of several slices of one kind the first is
compiled: figures of a chip are those of the others, but for the time of
collectives. What the estimates assume is printed below them.
"""

from collections.abc import Sequence
import dataclasses
import textwrap
from typing import Any

from absl import flags
import jax

from ctxseg_jax import commands
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax import json_text
from ctxseg_jax.planning import chips
from ctxseg_jax.planning import estimate
from ctxseg_jax.planning import here
from ctxseg_jax.planning import program as program_lib
from ctxseg_jax.planning import report
from ctxseg_jax.training import run as run_lib


def report_on(
    run: run_lib.Run,
    topologies: Sequence[str],
    *,
    images: int | None = None,
    compile_each: bool = False,
    compile_for: str | None = None,
) -> list[dict[str, Any]]:
  """Returns a report on each slice; see `planning.report`.

  Args:
    run: The parsed config.
    topologies: Names of slices.
    images: Images of each chip; None shares the config's batch.
    compile_each: Compile for each slice, not for the first of its kind.
    compile_for: The slice to compile for in the place of each.
  """
  wanted = []
  for where in map(chips.parse_slice, topologies):
    batch_size = images * where.num_chips if images else run.batch_size
    sized = dataclasses.replace(run, batch_size=batch_size)
    sized.check_batch_size(where.num_chips)
    wanted.append((where, sized))
  origin = chips.parse_slice(compile_for) if compile_for else None
  reports, programs = [], {}
  for where, sized in wanted:
    of = origin or where
    key = (of.chip, sized.batch_size // where.num_chips)
    if compile_each or key not in programs:
      programs[key] = of.name, _compile(run, of, key[1])
    name, program = programs[key]
    reports.append(report.make(sized, program, where, compiled_for=name))
  return reports


def _compile(run, where, images):
  """Returns the program of a slice, or says what to change."""
  devices = program_lib.tpu_devices(where)
  try:
    return program_lib.compile_step(run, devices, images * len(devices))[-1]
  except program_lib.TooLargeError as e:
    raise errors.UserError(
        f"{where.name}: the step does not fit: {e}; to change:"
        f" {'; '.join(estimate.remedies(run, images))}"
    ) from e


def report_here(run: run_lib.Run, steps: int) -> dict[str, Any]:
  """Returns a report on the devices at hand, and on real steps if any."""
  devices = jax.devices()
  run.check_batch_size(len(devices))
  compiled, shapes, program = program_lib.compile_step(
      run, devices, run.batch_size
  )
  where = here.describe_devices(run.model.backbone.dtype)
  made = report.make(run, program, where, compiled_for=where.name)
  if steps:
    made["measured"] = here.time_steps(compiled, shapes, steps)
  return made


def main(argv: Sequence[str]) -> None:
  """Runs the command."""
  del argv
  given = flags.FLAGS
  if given.topology:
    # Arrays of this process stay on the CPU, with or without a TPU beside it.
    jax.config.update("jax_platforms", "cpu")
  run = experiment.parse(given.config)
  if given.topology:
    if given.measure_steps:
      raise errors.UserError(
          "--measure_steps: needs devices at hand; leave out --topology"
      )
    reports = report_on(
        run,
        given.topology,
        images=given.batch_per_chip,
        compile_each=given.compile_each,
        compile_for=given.compile_for,
    )
  else:
    for name in ("batch_per_chip", "compile_each", "compile_for"):
      if given[name].value:
        raise errors.UserError(
            f"--{name}: needs --topology; on the devices at hand a batch is"
            " the config's, --config.batch_size"
        )
    reports = [report_here(run, given.measure_steps)]
  if given.json:
    print(json_text.to_json(reports, indent=2))
    return
  for made in reports:
    print(report.text(made, largest=given.largest))
  for assumption in estimate.ASSUMPTIONS:
    print("\n".join(textwrap.wrap(assumption, 80)))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  commands.define_config()
  flags.DEFINE_list("topology", None, "Slices of TPUs, such as v5e:16x16.")
  flags.DEFINE_integer(
      "batch_per_chip",
      None,
      "Images of each chip; default: the config's batch, shared by all.",
      lower_bound=1,
  )
  flags.DEFINE_bool(
      "compile_each", False, "Compile for every slice, not one of each kind."
  )
  flags.DEFINE_string(
      "compile_for",
      None,
      "The slice to compile for in the place of all: quicker, and not what the"
      " compiler would do for chips of another kind.",
  )
  flags.DEFINE_integer(
      "measure_steps",
      0,
      "Steps to run on the devices at hand, after one that does not count.",
      lower_bound=0,
  )
  flags.DEFINE_integer(
      "largest", 0, "Operations to list that move the most.", lower_bound=0
  )
  flags.DEFINE_bool("json", False, "Print JSON instead of text.")
  flags.mark_flags_as_required(["config"])
  commands.run(main)
