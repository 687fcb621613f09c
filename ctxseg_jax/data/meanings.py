"""What labels may mean that hold other values than a user's classes have.

A reading is never applied. It is a fault with lines for `classes.txt`, which
the user writes there if they are right.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import spec as spec_lib

_NUM_SHOWN = 4  # Lines in a message, which is one line itself.
_NUM_LISTED = 8  # Values in a message.
_MANY_COLORS = 64  # More are no classes, but a photograph or lossy.
_MANY_VALUES = 16  # More values than classes, likewise.
_VOC_BORDER = (224, 224, 192)
_ORDER = "they are the classes in this order"
_NAMES = "these are your classes, with their names in place of NAME"


class Proposal(NamedTuple):
  """Lines to take the place of such in `classes.txt`, and when."""

  condition: str
  lines: Sequence[str]


class Reading(NamedTuple):
  """What the labels of a dataset seem to be, and what may be meant.

  The text is empty where what is said of the files is enough.
  """

  text: str
  proposals: Sequence[Proposal] = ()


def read(
    spec: spec_lib.DatasetSpec,
    known: np.ndarray,
    unknown: Mapping[int | tuple[int, int, int], int],
) -> Reading | None:
  """Returns what labels seem to hold of which classes say nothing.

  Args:
    spec: The dataset.
    known: int64 [256], pixels by train id or `ignore_label`.
    unknown: Pixels by the values and colours that mean nothing.
  """
  colors = {c: n for c, n in unknown.items() if isinstance(c, tuple)}
  reading = None
  if colors and not spec.colors:
    reading = _read_colors(spec, colors)
  elif not colors and not spec.values:
    reading = _read_values(spec, known, unknown)
  if reading is None and 0 < len(unknown) <= _NUM_LISTED:
    reading = _read_added(spec, unknown)
  return reading


def _read_values(
    spec: spec_lib.DatasetSpec,
    known: np.ndarray,
    unknown: Mapping[int, int],
) -> Reading | None:
  """Reads gray labels where ids are expected."""
  n = spec.num_classes
  pixels = {i: int(known[i]) for i in (*range(n), 255) if known[i]} | unknown
  shades = [gray(color) for color in spec.palette]
  ignored = {255} | {gray(c) for c, i in spec.colors.items() if i == 255}
  if len(unknown) > 1 and pixels.keys() <= {*shades, *ignored}:
    lines = _in_order(spec, shades, ignored & pixels.keys())
    is_told = len({*shades}) == n and not ignored & {*shades}
    return _reading(
        f"label values {_some(unknown)} are the brightness of the classes' "
        "colours",
        spec,
        [Proposal("so", lines)] if is_told else [],
    )
  if list(unknown) == [n]:
    found = f"ids up to {n} are one more than there are classes"
    if 0 in pixels:
      return _read_one_more(spec, range(n + 1), pixels, found)
    return _reading(
        f"id 0 ({spec.class_names[0]}) is in no label and {n} is in some, so "
        "all ids look shifted up by one",
        spec,
        [Proposal("so", _in_order(spec, range(1, n + 1)))],
    )
  if not unknown and n == len(pixels) == 2 and 255 in pixels:
    return _read_spread(
        spec,
        pixels,
        f"all labels hold {spec.class_names[min(pixels)]} and 255 only, so 255 "
        "looks used as a class, but it means ignored",
    )
  if list(unknown) == [254] and n - 1 not in pixels:
    return Reading("")  # Wrapped around, as `rules` tells.
  if not unknown or pixels.keys() >= {*range(n)}:
    return None
  found = f"label values {_some(pixels)} are not the ids of the classes"
  return _read_spread(spec, pixels, found)


def _read_spread(
    spec: spec_lib.DatasetSpec, pixels: Mapping[int, int], found: str
) -> Reading | None:
  """Reads labels of other values than ids, if there is one for each class."""
  n = spec.num_classes
  values = sorted(pixels)
  plain = [v for v in values if v != 255]
  for chosen, ignored in ((plain, {255} & pixels.keys()), (values, ())):
    if len(chosen) == n:
      lines = _in_order(spec, chosen, ignored)
      return _reading(found, spec, [Proposal(_ORDER, lines)])
  if len(plain) == n + 1:
    return _read_one_more(spec, plain, pixels, found)
  # Where some ids are right, the files tell the others.
  if {*plain} & {*range(1, n)} or len(values) >= max(n, _MANY_VALUES):
    return None
  return _reading(found, spec, [Proposal(_NAMES, _unnamed(pixels))])


def _read_added(
    spec: spec_lib.DatasetSpec,
    unknown: Mapping[int | tuple[int, int, int], int],
) -> Reading:
  """Reads labels that hold a few things more than what is said of them."""
  added = " ".join(sorted(map(_text, unknown)))
  values = spec_lib.ranges(v for v in spec.void_ids if v != 255)
  colors = [_text(c) for c, i in spec.colors.items() if i == 255]
  ignored = " ".join([*values.split(", "), *colors, added]).strip()
  name = classes_lib.IGNORE_NAME
  condition = f"{added} is to be ignored, as the only line of {name}"
  return Reading("", [Proposal(condition, [f"{name} = {ignored}"])])


def _read_one_more(
    spec: spec_lib.DatasetSpec,
    values: Sequence[int],
    pixels: Mapping[int, int],
    found: str,
) -> Reading:
  """Reads labels of which one value, the first or last, may be no class."""
  ends = [(values[-1], values[:-1]), (values[0], values[1:])]
  if values[0] == 0 and values[-1] != spec.num_classes:
    ends.reverse()
  border = [255] if 255 in pixels else []
  proposals = [
      Proposal(
          f"{odd} is to be ignored, the others being the classes in this order",
          _in_order(spec, others, [odd, *border]),
      )
      for odd, others in ends
  ]
  remedy = "Add the class that is missing, or write"
  return _reading(found, spec, proposals, remedy=remedy)


def _read_colors(
    spec: spec_lib.DatasetSpec, colors: Mapping[tuple[int, int, int], int]
) -> Reading:
  if len(colors) > _MANY_COLORS:
    return Reading(
        f"RGB labels of more than {_MANY_COLORS} colours, as after resizing "
        "with interpolation or saving as JPEG; expected one for each class. "
        "Make the labels again, resizing by nearest neighbour."
    )
  found = f"RGB labels of {len(colors)} colours, and no class has any"
  proposal = Proposal(_NAMES, _unnamed(colors))
  if {*colors} <= {*spec.palette, _VOC_BORDER}:  # Of VOC, without others.
    found += ", but they are VOC's"
    lines = _in_order(spec, spec.palette, {*colors} & {_VOC_BORDER})
    proposal = Proposal("the classes have them in VOC's order", lines)
  return _reading(found, spec, [proposal], "the colour of each class")


def _reading(
    found: str,
    spec: spec_lib.DatasetSpec,
    proposals: Sequence[Proposal],
    expected: str = "",
    remedy: str = "Write",
) -> Reading:
  expected = expected or f"0-{spec.num_classes - 1} for the classes"
  ways = []
  for condition, lines in proposals:
    shown = [repr(line) for line in lines if not line.startswith("#")]
    more = ", ..." if len(shown) > _NUM_SHOWN else ""
    ways.append(f"if {condition}: {', '.join(shown[:_NUM_SHOWN])}{more}")
  remedy += f" classes.txt anew, {'; or '.join(ways)}"
  if not proposals:
    remedy = "Save ids, or the colours themselves"
  return Reading(f"{found}; expected {expected}. {remedy}.", proposals)


def gray(color: tuple[int, int, int]) -> int:
  """Returns what Pillow and OpenCV make of a colour in gray files."""
  red, green, blue = color
  return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _in_order(
    spec: spec_lib.DatasetSpec, values: Iterable, ignored: Iterable = ()
) -> list[str]:
  """Returns the lines that give each class a value or colour, by id."""
  ignored = " ".join(map(_text, ignored))
  lines = [f"{classes_lib.IGNORE_NAME} = {ignored}"] if ignored else []
  for i, value in enumerate(values):
    color = " {} {} {}".format(*spec.palette[i]) if spec.colors else ""
    lines.append(f"{spec.class_names[i]}{color} = {_text(value)}")
  return lines


def _unnamed(pixels: Mapping) -> list[str]:
  """Returns lines of which the names are still to be written."""
  total = sum(pixels.values())
  lines = []
  for value in sorted(pixels, key=pixels.get, reverse=True):
    lines.append(f"# {pixels[value] / total:.1%} of these pixels:")
    lines.append(f"NAME = {_text(value)}")
  return lines


def _text(value: int | tuple[int, int, int]) -> str:
  return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _some(values: Iterable[int]) -> str:
  values = sorted(values)
  more = len(values) - _NUM_LISTED
  listed = spec_lib.ranges(values[:_NUM_LISTED])
  return f"{listed} and {more} more" if more > 0 else listed
