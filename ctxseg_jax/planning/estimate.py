"""Times and memory of a compiled step on chips, and what to change of it."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from ctxseg_jax.planning import chips
from ctxseg_jax.planning import program as program_lib
from ctxseg_jax.training import run as run_lib

ASSUMPTIONS = (
    "Operations are those of convolutions and matrix products, at the peak of"
    " the chip; what is read and written is at the full bandwidth of its"
    " memory. Each hides the other, and all else costs nothing: no step is"
    " faster, and real ones are slower.",
    "Collectives hide nothing and follow each other: batch norm waits for its"
    " statistics. Each takes its bytes over the links and"
    f" {chips.HOP_SECONDS * 1e6:.0f} microsecond for each hop to the farthest"
    " chip and back.",
    "Efficiency is the time without collectives over the time with them, at"
    " the same number of images per chip. The input is never late.",
)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What a step takes on one chip; in seconds.

  Attributes:
    operations: At the peak of the chip.
    memory: At the bandwidth of its memory.
    collectives: All of them, one after the other.
    fits: Whether the chip has the memory that the step holds.
  """

  operations: float
  memory: float
  collectives: float
  fits: bool

  @property
  def alone(self) -> float:
    """The time of a step without collectives."""
    return max(self.operations, self.memory)

  @property
  def step(self) -> float:
    return self.alone + self.collectives

  @property
  def efficiency(self) -> float:
    return self.alone / self.step


def estimate(program: program_lib.Program, where: chips.Slice) -> Estimate:
  """Estimates a step on a slice.

  Args:
    program: The step, compiled for this or another slice of the same chips
      with as many images for each.
    where: The slice.
  """
  chip = where.chip
  return Estimate(
      operations=program.flops / chip.flops,
      memory=program.num_bytes / chip.bandwidth,
      collectives=sum(
          runs * where.all_reduce_seconds(num_bytes)
          for of_kind in program.collectives.values()
          for runs, num_bytes in of_kind
      ),
      fits=program.memory <= chip.memory,
  )


def remedies(run: run_lib.Run, images: int) -> list[str]:
  """Returns what makes a step need less memory, the cheapest first.

  Args:
    run: The parsed config.
    images: Images of each device.
  """
  found = []
  height, width = run.augmentation.crop_size
  for name, term in run.config["loss"].items():
    if term.get("num_chunks") == 1 and run.model.upsample_in_training:
      logits = images * height * width * run.spec.num_classes * 4
      found.append(
          f"--config.loss.{name}.num_chunks=64: no map of {logits / 1e9:.1f}"
          " GB of its scores at the size of the image, of which there are some"
      )
  backbone: Mapping[str, Any] = run.config["model"]["backbone"]
  steps = {
      "none": ("conv", "keeps only what convolutions return"),
      "conv": ("block", "keeps only what goes into a block"),
  }
  if backbone.get("remat") in steps:
    mode, effect = steps[backbone["remat"]]
    found.append(
        f"--config.model.backbone.remat={mode}: {effect}, and computes the"
        " rest again"
    )
  if images > 1:
    found.append(
        f"more chips, or a smaller --config.batch_size: now {images} images"
        " each"
    )
  return found
