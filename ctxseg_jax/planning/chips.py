"""What accelerators can do, as their maker publishes it, and slices of them.

Peak, memory, bandwidth and links of the TPUs are of the pages
https://docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, read in November 2026;
of a link there is the bandwidth of a chip in both directions, divided by twice
its ports. That of v4 is 50 GB/s in Jouppi et al., "TPU v4: An Optically
Reconfigurable Supercomputer for Machine Learning with Hardware Support for
Embeddings", ISCA 2023. The time of a hop is no published figure.
"""

import dataclasses
import math
import re

from ctxseg_jax import errors

# Of one hop between neighbours, in seconds: the usual rule of thumb.
HOP_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of device.

  Attributes:
    flops: Peak operations per second, of bfloat16 unless measured.
    memory: Bytes of its memory.
    bandwidth: Bytes per second between it and its memory.
    link: Bytes per second of one link in one direction; None has no links.
    axes: Axes of the mesh that its links make.
    max_chips: The most that links join; more need a slower network.
    config: What the compiler calls the chip where both of its cores are one
      device, as a run has them; None is its default.
  """

  flops: float
  memory: float
  bandwidth: float
  link: float | None = None
  axes: int = 1
  max_chips: int = 1
  config: str | None = None


TPUS = {
    "v4": Chip(275e12, 32 * 2**30, 1.2e12, 50e9, 3, 4096, "megacore"),
    "v5e": Chip(197e12, 16e9, 0.819e12, 50e9, 2, 256),
    "v5p": Chip(459e12, 95e9, 2.765e12, 100e9, 3, 8960),
    "v6e": Chip(918e12, 32e9, 1.638e12, 100e9, 2, 256),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips of one kind in a mesh, such as "v5e:16x16"."""

  name: str
  chip: Chip
  shape: tuple[int, ...]

  @property
  def num_chips(self) -> int:
    return math.prod(self.shape)

  def wraps(self, size: int) -> bool:
    """Whether an axis of this size is a ring; else it is a line."""
    if self.chip.axes == 2:
      return size == 16
    return all(n % 4 == 0 for n in self.shape)

  def all_reduce_seconds(self, num_bytes: float) -> float:
    """Estimates the time of an all-reduce over all chips.

    A part of it goes each way along each axis, and all of it passes a chip
    twice; the first byte has to go through the mesh and back. It is 0 where
    the links are not known.
    """
    axes = [n for n in self.shape if n > 1]
    if not axes or self.chip.link is None:
      return 0.0
    ways = sum(2 if self.wraps(n) else 1 for n in axes)
    hops = sum(n // 2 if self.wraps(n) else n - 1 for n in axes)
    share = 2 * (1 - 1 / self.num_chips)
    seconds = share * num_bytes / (ways * self.chip.link)
    return seconds + 2 * hops * HOP_SECONDS


def parse_slice(text: str) -> Slice:
  """Returns the slice that "v5e:16x16" names.

  Raises:
    UserError: It is none, of an unknown kind, or larger than there are.
  """
  kind, _, sizes = text.partition(":")
  known = ", ".join(TPUS)
  if kind not in TPUS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
    raise errors.UserError(
        f"--topology: expected a kind of {known} and its mesh, such as"
        f" v5e:16x16 or v5p:4x4x4, got {text!r}"
    )
  chip = TPUS[kind]
  shape = tuple(map(int, sizes.split("x")))
  if len(shape) != chip.axes:
    raise errors.UserError(
        f"--topology: {text}: {kind} has meshes of {chip.axes} axes, got"
        f" {len(shape)}; write it as {kind}:{'x'.join('4' * chip.axes)}"
    )
  found = Slice(text, chip, shape)
  if found.num_chips > chip.max_chips:
    raise errors.UserError(
        f"--topology: {text}: {found.num_chips} chips, {kind} has at most"
        f" {chip.max_chips} that links join; choose a smaller one"
    )
  return found
