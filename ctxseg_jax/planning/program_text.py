"""What a compiled program moves, read from its text.

XLA's own sums of costs count the body of a loop once, and take what a TPU
copies into its fast memory for traffic of the large one, on the way and again
where it is used. Here loops count as often as they run, and each memory apart.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
import re

_BYTES = dict(
    pred=1, s8=1, u8=1, s16=2, u16=2, bf16=2, f16=2, s32=4, u32=4, f32=4
) | dict(s64=8, u64=8, f64=8)

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)

# What has a name but moves nothing, and ends of what is counted at its start.
_FREE = {
    *("parameter", "constant", "iota", "tuple", "get-tuple-element"),
    *("bitcast", "after-all", "opt-barrier", "partition-id", "replica-id"),
}

_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{")
_INSTRUCTION = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """An instruction outside of fusions, as often as it runs.

  Attributes:
    operation: Its operation, such as "fusion" or "all-reduce".
    source: The operation of JAX that it comes from, with its modules.
    repeats: How often it runs: more than once in loops.
    num_bytes: Read and written of the device's memory, in one run.
    fast_bytes: Read and written of its fast memory, in one run.
    result_bytes: Of what it returns, wherever that is.
  """

  operation: str
  source: str
  repeats: int
  num_bytes: int
  fast_bytes: int
  result_bytes: int


def instructions(text: str) -> list[Instruction]:
  """Returns what a compiled program runs, in order."""
  computations, entry = _computations(text)
  return list(_walk(computations, entry, 1))


def collectives(
    found: Sequence[Instruction],
) -> dict[str, list[tuple[int, int]]]:
  """Returns the (runs, bytes of one) of collectives, by kind."""
  by_kind = {}
  for x in found:
    kind = x.operation.removesuffix("-start")
    if kind in _COLLECTIVES:
      by_kind.setdefault(kind, []).append((x.repeats, x.result_bytes))
  return by_kind


def _computations(text):
  """Returns the lines of each computation, and the name of the first run."""
  computations, lines, entry = {}, None, None
  for line in text.splitlines():
    start = _COMPUTATION.match(line)
    if start:
      lines = computations[start[2]] = []
      entry = start[2] if start[1] else entry
    elif lines is not None:
      lines.append(line.strip())
  return computations, entry


def _walk(computations, name, repeats) -> Iterator[Instruction]:
  shapes = {}
  for line in computations[name]:
    match = _INSTRUCTION.match(line)
    if not match:
      continue
    result, shape, operation, rest = match.groups()
    shapes[result] = shape
    called = re.search(r"(?:body|to_apply)=%?([\w.\-]+)", rest)
    if operation == "while":
      count = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
      inner = repeats * (int(count[1]) if count else 1)
      yield from _walk(computations, called[1], inner)
    elif operation == "call":
      yield from _walk(computations, called[1], repeats)
    elif operation not in _FREE and not operation.endswith("-done"):
      operands = [
          shapes.get(x, "") for x in re.findall(r"%([\w.\-]+)", _inside(rest))
      ]
      yield _instruction(operation, shape, operands, rest, repeats)


def _instruction(operation, shape, operands, rest, repeats):
  source = re.search(r'op_name="([^"]*)"', rest)
  returned = _ARRAY.findall(shape)
  if operation in ("copy-start", "slice-start"):
    # Its result names source and target: what is moved is the smaller.
    moved = min(_size(x) for x in returned[:2])
    slow, fast = moved, moved
  else:
    arrays = returned + _ARRAY.findall(" ".join(operands))
    slow = sum(_size(x) for x in arrays if not _is_fast(x))
    fast = sum(_size(x) for x in arrays if _is_fast(x))
  return Instruction(
      operation=operation,
      source=source[1] if source else "",
      repeats=repeats,
      num_bytes=slow,
      fast_bytes=fast,
      result_bytes=sum(map(_size, returned)),
  )


def _inside(rest):
  """Returns the text up to the bracket that closes the operands."""
  depth = 1
  for i, character in enumerate(rest):
    depth += {"(": 1, ")": -1}.get(character, 0)
    if not depth:
      return rest[:i]
  return rest


def _is_fast(array):
  # S(0), which is not written, is the large memory.
  return "S(" in array[2]


def _size(array):
  """Returns the bytes of an array, with what its tiles add at the edges."""
  dtype, sizes, layout = array
  sizes = [int(x) for x in sizes.split(",") if x]
  order, _, tiles = layout.partition(":")
  tile = re.search(r"T\((\d+),(\d+)\)", tiles)
  if tile and len(sizes) > 1:
    minor, second = (int(x) for x in order.split(",")[:2])
    rows, columns = map(int, tile.groups())
    sizes[minor] = -(-sizes[minor] // columns) * columns
    sizes[second] = -(-sizes[second] // rows) * rows
  return math.prod(sizes) * _BYTES.get(dtype, 0)
