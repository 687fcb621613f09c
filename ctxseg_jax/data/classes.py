"""The classes of a user's own dataset, from a text file, `classes.txt`.

UTF-8 text, a class per line:

    # Names may hold blanks; this line and empty ones are left out.
    road 128 64 128
    traffic light 250 170 30

A line is

- empty, or a comment: it starts with `#`;
- a class: its name, or its name and its colour as R G B of 0 to 255, as all
  classes have or none. Pictures use the colours. Gray labels hold the place of
  the class, counted from 0, and RGB labels its colour;
- a class with `=` and what labels hold for it instead, as `road = 80` or
  `car = 160 240-249` or `car 0 0 142 = 0,0,142 0,0,70`: values of 0 to 65535,
  ranges of them, or colours R,G,B. If one class has values, all have;
- `__ignore__ R G B` or `__ignore__ = 0 250-254`: no class, but what labels hold
  where pixels are to be ignored. 255 is ignored unless a class has it.

A name holds no `#` or `=`, and neither starts nor ends with a number: `0 road`
and `road 128` are taken for ids or half a colour, so write `road_128` if that
is the name. Each name, colour and value belongs to one line, and there are 2 to
255 classes.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
import re
from typing import NamedTuple

from ctxseg_jax import errors
from ctxseg_jax import files

IGNORE_LABEL = 255
IGNORE_NAME = "__ignore__"
_EXPECTED = "a class per line, as its name or as its name and R G B of 0-255"
_EXPECTED_VALUES = (
    "values of 0-65535, ranges such as 1-5 or colours such as 128,64,128 "
    "behind =, with blanks between"
)
MAX_VALUE = 65535  # Of labels of 16 bits.
TABLES = pathlib.Path(__file__).parent / "datasets" / "tables"
_MAX_BYTES = 1 << 20
_SHOWN = 60  # Characters of a line in a message.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)")

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Classes:
  """Names and colours by id, and what labels may hold.

  Attributes:
    names: By id.
    palette: By id; VOC's without colours in the file.
    colors: Ids by the colours of RGB labels.
    values: First and last value of gray labels and their id, for all values
      that mean something; none where these are the ids themselves and 255.
  """

  names: tuple[str, ...]
  palette: tuple[Color, ...]
  colors: Mapping[Color, int]
  values: tuple[tuple[int, int, int], ...] = ()


class _Row(NamedTuple):
  """A line that is no comment."""

  name: str
  color: Color | None  # Of pictures.
  values: tuple[tuple[int, int], ...]  # First and last ones, of gray labels.
  label_colors: tuple[Color, ...]
  place: str


def read(path: pathlib.Path) -> Classes:
  """Reads a file of classes.

  Raises:
    UserError: It is not there, no text, or a line of it is none of the above.
  """
  rows = _rows(path)
  classes = [row for row in rows if row.name != IGNORE_NAME]
  names = tuple(row.name for row in classes)
  if not 2 <= len(names) <= IGNORE_LABEL:
    raise errors.UserError(
        f"{files.printable(path)}: found {len(names)} classes; expected 2 to "
        f"{IGNORE_LABEL}, {_EXPECTED}. What is none of your classes is a "
        "class, too, such as background, unless it is ignored."
    )
  for what, field, expected in (
      ("colour", "color", _EXPECTED),
      ("value behind =", "values", _EXPECTED_VALUES),
      ("colour behind =", "label_colors", _EXPECTED_VALUES),
  ):
    without = [row.place for row in classes if not getattr(row, field)]
    if 0 < len(without) < len(classes):
      raise errors.UserError(
          f"{without[0]}: no {what}, though other lines have one; expected "
          f"{expected}. Complete the line."
      )
  with_values = any(row.values for row in rows)
  ids = {name: i for i, name in enumerate(names)}
  if not classes[0].values:
    rows = [
        row._replace(values=((ids[row.name],) * 2,)) if row.name in ids else row
        for row in rows
    ]
  _check_unique(rows)
  id_of = {row.name: ids.get(row.name, IGNORE_LABEL) for row in rows}
  values = [(*ends, id_of[row.name]) for row in rows for ends in row.values]
  if not any(first <= IGNORE_LABEL <= last for first, last, _ in values):
    values.append((IGNORE_LABEL, IGNORE_LABEL, IGNORE_LABEL))
  return Classes(
      names,
      tuple(
          row.color or (*row.label_colors, voc_color(i))[0]
          for i, row in enumerate(classes)
      ),
      {color: id_of[row.name] for row in rows for color in row.label_colors},
      tuple(values) if with_values else (),
  )


def read_published(name: str) -> tuple[tuple[str, ...], tuple[Color, ...]]:
  """Returns names and colours of a table in `datasets/tables`.

  The syntax is that above, but two classes may share a colour, as those of
  published palettes do.
  """
  rows = _rows(TABLES / f"{name}.txt")
  return tuple(r.name for r in rows), tuple(r.color for r in rows)


def voc_color(index: int) -> Color:
  """Returns the colour of an id in VOC's palette: its bits, shuffled."""
  color = [0, 0, 0]
  for bit in range(8):
    for channel in range(3):
      color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
  return tuple(color)


def _rows(path: pathlib.Path) -> list[_Row]:
  """Returns the lines that are no comments."""
  text = files.read_text(
      path,
      max_bytes=_MAX_BYTES,
      what=f"a text file, {_EXPECTED}",
      remedy="Write one, in the order of the ids in the labels.",
  )
  return [
      _parse(line.strip(), f"{files.printable(path)}:{number}")
      for number, line in enumerate(text.splitlines(), start=1)
      if line.strip() and not line.lstrip().startswith("#")
  ]


def _parse(line: str, place: str) -> _Row:
  """Returns what a line says that is no comment."""
  head, equals, tail = line.partition("=")
  name, *numbers = head.rsplit(maxsplit=3) or [""]
  color = None
  if len(numbers) == 3 and all(re.fullmatch("[0-9]{1,3}", n) for n in numbers):
    color = tuple(map(int, numbers))
  name = " ".join((name if color else head).split())
  words = re.findall(r"[^\s,;:]+", name)
  values, label_colors, odd = [], [], []
  for text in tail.split():
    parts = tuple(map(int, re.findall("[0-9]{1,5}", text)))
    if re.fullmatch("[0-9]{1,5}(-[0-9]{1,5})?", text) and _ascend(parts):
      values.append((parts[0], parts[-1]))
    elif re.fullmatch("[0-9]{1,3}(,[0-9]{1,3}){2}", text) and max(parts) <= 255:
      label_colors.append(parts)
    else:
      odd.append(text)
  problem = ""
  if not words or not name.isprintable() or (color and max(color) > 255):
    problem = f"{_EXPECTED}. Mend the line."
  elif "#" in line:
    problem = "comments on lines of their own. Move or remove this one."
  elif _NUMBER.fullmatch(words[0]) or _NUMBER.fullmatch(words[-1]):
    problem = (
        f"{_EXPECTED}; ids are not written, they count from 0 in the order of "
        "the lines. Complete the colour, remove the number, join it to the "
        "name by an underscore, or write = before what labels hold."
    )
  elif odd or (equals and not tail.strip()):
    problem = f"{_EXPECTED_VALUES}. Mend the line."
  elif name == IGNORE_NAME and color is None and not equals:
    problem = (
        f"{IGNORE_NAME} with R G B, the colour to ignore, or with = and "
        f"values. {IGNORE_LABEL} is ignored without it: remove the line, and "
        "see that the id of the next line is the one in the labels."
    )
  if problem:
    shown = repr(line[:_SHOWN]) + "..." * (len(line) > _SHOWN)
    raise errors.UserError(f"{place}: found {shown}; expected {problem}")
  if color and (not equals or name == IGNORE_NAME):
    label_colors.append(color)
  return _Row(name, color, tuple(values), tuple(label_colors), place)


def _ascend(values: tuple[int, ...]) -> bool:
  return values == tuple(sorted(values)) and values[-1] <= MAX_VALUE


def _check_unique(rows: list[_Row]) -> None:
  """Refuses what belongs to two lines; the same within one does no harm."""
  places = {}
  for name, color, values, label_colors, place in rows:
    parts = [("class", name)]
    parts += [("colour", c) for c in filter(None, (color, *label_colors))]
    parts += [
        ("value", v) for ends in values for v in range(ends[0], ends[1] + 1)
    ]
    for what, value in parts:
      first = places.setdefault((what, value), place)
      if first != place:
        counted = " (without = they count from 0)" if what == "value" else ""
        raise errors.UserError(
            f"{place}: {what} {value} occurs twice{counted}, first in {first}; "
            f"expected each {what} once. Change a line."
        )
