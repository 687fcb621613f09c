"""The classes of a user's own dataset, from a text file.

A line per class, in the order of the ids from 0 on:

    road 128 64 128
    traffic light 250 170 30

The colours may be left out, of all classes or of none. With them labels may be
RGB images of exactly these colours, and pictures use them. As in labelme, a
line `__ignore__` is no class: pixels of its colour are ignored, like the id 255
in labels of ids.
"""

from collections.abc import Mapping
import dataclasses
import pathlib

from ctxseg_jax import errors

IGNORE_LABEL = 255
_IGNORE_NAME = "__ignore__"
_EXPECTED = "a class per line, as its name or as its name and R G B of 0-255"

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Classes:
  """Classes of a dataset.

  Attributes:
    names: By id.
    palette: RGB colours by id.
    colors: Ids by the RGB colours that labels may have; none without colours
      in the file.
  """

  names: tuple[str, ...]
  palette: tuple[Color, ...]
  colors: Mapping[Color, int]


def read(path: pathlib.Path) -> Classes:
  """Reads a file of classes.

  Raises:
    UserError: It is not there, no text, or a line of it is no class.
  """
  try:
    text = path.read_text(encoding="utf-8-sig")
  except FileNotFoundError as error:
    raise errors.UserError(
        f"{path}: no such file; expected {_EXPECTED}. Write one, in the order "
        "of the ids in the labels."
    ) from error
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(
        f"{path}: cannot be read as a text file ({error}); expected "
        f"{_EXPECTED}. Replace the file."
    ) from error
  rows = [
      _row(line, f"{path}:{number}")
      for number, line in enumerate(text.splitlines(), start=1)
      if line.strip()
  ]
  _check_unique(rows)
  names = tuple(name for name, _, _ in rows if name != _IGNORE_NAME)
  if not 2 <= len(names) <= IGNORE_LABEL:
    raise errors.UserError(
        f"{path}: found {len(names)} classes; expected 2 to {IGNORE_LABEL}, "
        f"{_EXPECTED}. What is none of your classes is a class, too, such as "
        "background, unless it is ignored."
    )
  with_color = [row for row in rows if row[1] is not None]
  if with_color and len(with_color) != len(rows):
    place = next(place for _, color, place in rows if color is None)
    raise errors.UserError(
        f"{place}: no colour, though other lines have one; expected {_EXPECTED}"
        ". Complete the line."
    )
  if not with_color:
    return Classes(names, tuple(voc_color(i) for i in range(len(names))), {})
  ids = {name: i for i, name in enumerate(names)}
  colors = {color: ids.get(name, IGNORE_LABEL) for name, color, _ in rows}
  palette = tuple(color for name, color, _ in rows if name != _IGNORE_NAME)
  return Classes(names, palette, colors)


def voc_color(index: int) -> Color:
  """Returns the colour of an id in VOC's palette: its bits, shuffled."""
  color = [0, 0, 0]
  for bit in range(8):
    for channel in range(3):
      color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
  return tuple(color)


def _row(line: str, place: str) -> tuple[str, Color | None, str]:
  """Returns name, colour and place of a line."""
  words = line.split()
  # A class may have a number in its name, but hardly three at its end.
  numbers = words[-3:] if len(words) >= 3 else []
  if len(numbers) < 3 or not all(n.lstrip("-").isdecimal() for n in numbers):
    name, color = " ".join(words), None
  else:
    name, color = " ".join(words[:-3]), tuple(map(int, numbers))
  unprintable = not name.isprintable()
  if (
      not name
      or unprintable
      or (color and not 0 <= min(color) <= max(color) < 256)
  ):
    raise errors.UserError(
        f"{place}: found {line.strip()!r}; expected {_EXPECTED}. Mend the line."
    )
  return name, color, place


def _check_unique(rows: list[tuple[str, Color | None, str]]) -> None:
  places = {}
  for name, color, place in rows:
    for what, value in (("class", name), ("colour", color)):
      if value is None:
        continue
      if (what, value) in places:
        raise errors.UserError(
            f"{place}: {what} {value} occurs twice, first in "
            f"{places[what, value]}; expected each {what} once. Change a line."
        )
      places[what, value] = place
