"""The classes of a user's own dataset, from a text file, `classes.txt`.

UTF-8 text, a class per line in the order of the ids, which count from 0 and are
not written:

    # Names may hold blanks; this line and empty ones are left out.
    road 128 64 128
    traffic light 250 170 30

A line is

- empty, or a comment: it starts with `#`;
- a class: its name, or its name and its colour as R G B of 0 to 255, as all
  classes have or none. Then labels may be RGB, and pictures use the colours;
- `__ignore__ R G B`: no class, but the colour of pixels to ignore. In labels of
  ids these have the id 255, which needs no line.

A name holds no `#`, and neither starts nor ends with a number: `0 road` and
`road 128` are taken for ids or half a colour, so write `road_128` if that is
the name. Each name and each colour occurs once, and there are 2 to 255 classes.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
import re

from ctxseg_jax import errors
from ctxseg_jax import files

IGNORE_LABEL = 255
_IGNORE_NAME = "__ignore__"
_EXPECTED = "a class per line, as its name or as its name and R G B of 0-255"
TABLES = pathlib.Path(__file__).parent / "datasets" / "tables"
_MAX_BYTES = 1 << 20
_SHOWN = 60  # Characters of a line in a message.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)")

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Classes:
  """Names and colours by id, and ids by the colours that labels may have.

  Without colours in the file the palette is VOC's, and `colors` is empty.
  """

  names: tuple[str, ...]
  palette: tuple[Color, ...]
  colors: Mapping[Color, int]


def read(path: pathlib.Path) -> Classes:
  """Reads a file of classes.

  Raises:
    UserError: It is not there, no text, or a line of it is none of the above.
  """
  rows = _rows(path)
  _check_unique(rows)
  names = tuple(name for name, _, _ in rows if name != _IGNORE_NAME)
  if not 2 <= len(names) <= IGNORE_LABEL:
    raise errors.UserError(
        f"{files.printable(path)}: found {len(names)} classes; expected 2 to "
        f"{IGNORE_LABEL}, {_EXPECTED}. What is none of your classes is a "
        "class, too, such as background, unless it is ignored."
    )
  without = [place for _, color, place in rows if color is None]
  if not without:
    palette = tuple(color for name, color, _ in rows if name != _IGNORE_NAME)
    ids = {name: i for i, name in enumerate(names)}
    colors = {color: ids.get(name, IGNORE_LABEL) for name, color, _ in rows}
    return Classes(names, palette, colors)
  if len(without) < len(rows):
    raise errors.UserError(
        f"{without[0]}: no colour, though other lines have one; expected "
        f"{_EXPECTED}. Complete the line."
    )
  return Classes(names, tuple(voc_color(i) for i in range(len(names))), {})


def read_published(name: str) -> tuple[tuple[str, ...], tuple[Color, ...]]:
  """Returns names and colours of a table in `datasets/tables`.

  The syntax is that above, but two classes may share a colour, as those of
  published palettes do.
  """
  names, palette, _ = zip(*_rows(TABLES / f"{name}.txt"), strict=True)
  return names, palette


def voc_color(index: int) -> Color:
  """Returns the colour of an id in VOC's palette: its bits, shuffled."""
  color = [0, 0, 0]
  for bit in range(8):
    for channel in range(3):
      color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
  return tuple(color)


def _rows(path: pathlib.Path) -> list[tuple[str, Color | None, str]]:
  """Returns name, colour and place of each line that is no comment."""
  text = files.read_text(
      path,
      max_bytes=_MAX_BYTES,
      what=f"a text file, {_EXPECTED}",
      remedy="Write one, in the order of the ids in the labels.",
  )
  rows = []
  for number, line in enumerate(text.splitlines(), start=1):
    if line.strip() and not line.lstrip().startswith("#"):
      place = f"{files.printable(path)}:{number}"
      rows.append((*_parse(line.strip(), place), place))
  return rows


def _parse(line: str, place: str) -> tuple[str, Color | None]:
  """Returns name and colour of a line that is no comment."""
  name, *numbers = line.rsplit(maxsplit=3)
  color = None
  if len(numbers) == 3 and all(re.fullmatch("[0-9]{1,3}", n) for n in numbers):
    color = tuple(map(int, numbers))
  name = " ".join((name if color else line).split())
  words = re.findall(r"[^\s,;:=]+", name)
  problem = ""
  if not words or not name.isprintable() or (color and max(color) > 255):
    problem = f"{_EXPECTED}. Mend the line."
  elif "#" in name:
    problem = "comments on lines of their own. Move or remove this one."
  elif _NUMBER.fullmatch(words[0]) or _NUMBER.fullmatch(words[-1]):
    problem = (
        f"{_EXPECTED}; ids are not written, they count from 0 in the order of "
        "the lines. Complete the colour, remove the number, or join it to the "
        "name by an underscore."
    )
  elif name == _IGNORE_NAME and color is None:
    problem = (
        f"{_IGNORE_NAME} with R G B, the colour to ignore. In labels of ids "
        f"{IGNORE_LABEL} is ignored without it: remove the line, and see that "
        "the id of the next line is the one in the labels."
    )
  if problem:
    shown = repr(line[:_SHOWN]) + "..." * (len(line) > _SHOWN)
    raise errors.UserError(f"{place}: found {shown}; expected {problem}")
  return name, color


def _check_unique(rows: list[tuple[str, Color | None, str]]) -> None:
  places = {}
  for name, color, place in rows:
    for what, value in (("class", name), ("colour", color)):
      first = places.setdefault((what, value), place)
      if value is not None and first != place:
        raise errors.UserError(
            f"{place}: {what} {value} occurs twice, first in {first}; expected "
            f"each {what} once. Change a line."
        )
