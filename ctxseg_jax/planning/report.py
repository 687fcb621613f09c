"""The report on a compiled step: plain values, and text for people."""

import collections
import re
import statistics
from typing import Any

from ctxseg_jax import columns
from ctxseg_jax.planning import chips
from ctxseg_jax.planning import estimate as estimate_lib
from ctxseg_jax.planning import program as program_lib
from ctxseg_jax.training import run as run_lib

_LARGEST = 50  # Sources whose bytes are in a report.


def make(
    run: run_lib.Run,
    program: program_lib.Program,
    where: chips.Slice,
    *,
    compiled_for: str,
) -> dict[str, Any]:
  """Returns what a step costs on a slice, as plain values.

  Bytes, operations and seconds are of one step on one chip.

  Args:
    run: The parsed config.
    program: Its step, compiled for this or another slice of the same chips.
    where: The slice.
    compiled_for: The name of the slice that the program was compiled for.
  """
  found = estimate_lib.estimate(program, where)
  return {
      "where": where.name,
      "chips": where.num_chips,
      "images_per_chip": program.images,
      "compiled_for": compiled_for,
      "compile_seconds": program.compile_seconds,
      "chip": {
          "flops_per_second": where.chip.flops,
          "memory": where.chip.memory,
          "bytes_per_second": where.chip.bandwidth,
          "bytes_per_second_of_link": where.chip.link,
      },
      "flops": program.flops,
      "memory": program.memory,
      "memory_of_state_and_batch": program.arguments,
      "fits": found.fits,
      "remedies": (
          [] if found.fits else estimate_lib.remedies(run, program.images)
      ),
      "bytes": program.num_bytes,
      "bytes_of_fast_memory": program.fast_bytes,
      "xla_flops": program.xla_flops,
      "xla_bytes": program.xla_bytes,
      "batch_norms": program.batch_norms,
      "collectives": {
          kind: {
              "runs": sum(runs for runs, _ in of_kind),
              "bytes": sum(runs * size for runs, size in of_kind),
          }
          for kind, of_kind in program.collectives.items()
      },
      "seconds": {
          "operations": found.operations,
          "memory": found.memory,
          "collectives": found.collectives,
          "step": found.step,
      },
      "images_per_second": run.batch_size / found.step,
      "efficiency": found.efficiency,
      "largest": _by_source(program.instructions),
  }


def _by_source(instructions):
  """Returns the bytes by where in the network they come from, largest first."""
  sums = collections.Counter()
  for x in instructions:
    direction = "backward" if "transpose(" in x.source else "forward"
    # Of the path in the program the last parts say what is computed.
    place = "/".join(x.source.split("/")[-4:]) or x.operation
    place = re.sub(r"\d+", "#", place)
    sums[direction, place] += x.repeats * x.num_bytes
  return [
      {"direction": direction, "source": source, "bytes": num_bytes}
      for (direction, source), num_bytes in sums.most_common(_LARGEST)
  ]


def text(report: dict[str, Any], *, largest: int) -> str:
  """Returns a report of `make` for people, with its `largest` sources."""
  lines = columns.align(_rows(report), "<>>") + _notes(report)
  for x in report["largest"][:largest]:
    lines.append(f"{_bytes(x['bytes']):>9} {x['direction']:8} {x['source']}")
  return "\n".join(lines) + "\n"


def _rows(report):
  chip, seconds = report["chip"], report["seconds"]
  flops_per_second = f"{chip['flops_per_second'] / 1e12:,.2f} T/s"
  bytes_per_second = f"{_bytes(chip['bytes_per_second'])}/s"
  return [
      (f"{report['where']}, {report['chips']} chips", "a chip", "it has"),
      ("images", str(report["images_per_chip"]), ""),
      ("memory", _bytes(report["memory"]), _bytes(chip["memory"])),
      ("  state and batch", _bytes(report["memory_of_state_and_batch"]), ""),
      ("operations", f"{report['flops'] / 1e12:.3f} T", flops_per_second),
      ("bytes of its memory", _bytes(report["bytes"]), bytes_per_second),
      ("bytes of its fast memory", _bytes(report["bytes_of_fast_memory"]), ""),
      ("time of operations", _milliseconds(seconds["operations"]), ""),
      ("time of its memory", _milliseconds(seconds["memory"]), ""),
      ("time of collectives", _milliseconds(seconds["collectives"]), ""),
      ("step, at best", _milliseconds(seconds["step"]), ""),
  ]


def _notes(report):
  seconds = report["seconds"]
  linked = report["chip"]["bytes_per_second_of_link"] is not None
  efficiency = f"{100 * report['efficiency']:.1f} % efficiency"
  limit = max(("operations", "memory"), key=seconds.get)
  kinds = [
      f"{x['runs']} {kind} of {_bytes(x['bytes'])} in all"
      for kind, x in report["collectives"].items()
  ]
  lines = [
      f"Limit: {limit}. {report['images_per_second']:,.0f} images/s at best,"
      f" {efficiency if linked else 'collectives are not estimated here'}.",
      f"Batch norms: {report['batch_norms']}. Collectives:"
      f" {', '.join(kinds) or 'none'}.",
      f"XLA's own sums: {report['xla_flops'] / 1e12:.3f} T operations,"
      f" {_bytes(report['xla_bytes'])} of both memories, loops once.",
  ]
  if report["compiled_for"] != report["where"]:
    lines.append(f"The program is that of {report['compiled_for']}.")
  if report["fits"]:
    lines.append("It fits.")
  else:
    lines.append("It does not fit. To change, the cheapest first:")
    lines += [f"  {x}" for x in report["remedies"]]
  if "measured" in report:
    times = report["measured"]
    median = statistics.median(times)
    lines.append(
        f"Measured: {_milliseconds(median)} (median of {len(times)} steps,"
        f" {_milliseconds(min(times))} to {_milliseconds(max(times))}),"
        f" {median / seconds['step']:.2f} times the estimate."
    )
  return lines


def _bytes(number):
  if number >= 1e8:
    return f"{number / 1e9:,.2f} GB"
  return f"{number / 1e6:.2f} MB"


def _milliseconds(seconds):
  return f"{seconds * 1e3:,.2f} ms"
