"""Lists of images and labels, in text files."""

import pathlib

from ctxseg_jax import files
from ctxseg_jax.data import finding


def read_list(
    list_file: pathlib.Path,
) -> tuple[dict[str, list[str]], list[str]]:
  """Returns the one or two fields of each line by `file:line`, and the faults.

  Raises:
    UserError: The list cannot be read.
  """
  text = files.read_text(
      list_file,
      what="a text file, an image and its label or a name per line",
      remedy="Replace the list, remove it, or pass --any_size to leave a "
      "published split out.",
  )
  lines, faults = {}, []
  for number, line in enumerate(text.splitlines(), start=1):
    place = f"{list_file}:{number}"
    # Names with blanks in them take a tab.
    fields = line.split("\t") if "\t" in line.strip() else line.split()
    fields = [field.strip().replace("\\", "/") for field in fields]
    if len(fields) > 2 or not all(f and f.isprintable() for f in fields):
      faults.append(
          f"{place}: found {line.strip()[:200]!r}; expected an image and its "
          "label with a blank or a tab between, or a name. Mend the line."
      )
    elif fields:
      lines[place] = fields
  return lines, faults


def read_ids(list_file: pathlib.Path) -> tuple[dict[str, str], list[str]]:
  """Returns the places by the ids of a published list, and the faults.

  Only the names of files count: published lists carry the path of their
  author's machine.

  Raises:
    UserError: The list cannot be read.
  """
  lines, faults = read_list(list_file)
  places = {}
  for place, fields in lines.items():
    names = [without_suffix(field).rpartition("/")[2] for field in fields]
    if len(set(names)) > 1:
      faults.append(
          f"{place}: found {' '.join(fields)!r}; expected a name, or an image "
          "and a label of the same name. Mend the line."
      )
    elif names[0] in places:
      faults.append(
          f"{place}: id {names[0]} occurs twice, first in {places[names[0]]}; "
          "expected each id once. Remove one line."
      )
    else:
      places[names[0]] = place
  return places, faults


def without_suffix(name: str) -> str:
  """Returns a name without the suffix of an image; ids may hold dots."""
  stem, dot, suffix = name.rpartition(".")
  return stem if dot + suffix.lower() in finding.IMAGE_SUFFIXES else name
