"""Roboflow's export "Semantic Segmentation Masks".

train/_classes.csv                 `Pixel Value, Class`, then a class a line
train/a_jpg.rf.1f.jpg              images and masks side by side
train/a_jpg.rf.1f_mask.png         gray
valid/..., test/...                the same
"""

import csv
import dataclasses
import pathlib

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import finding
from ctxseg_jax.data.exports import contents

_MARKER = "_classes.csv"
_WHAT = "Roboflow's table, `Pixel Value, Class` and a value and a name per line"


def read(root: pathlib.Path) -> contents.Contents | None:
  """Reads an export; see `exports`."""
  splits = contents.split_folders(root) or {"": "train"}
  splits = {n: s for n, s in splits.items() if (root / n / _MARKER).is_file()}
  if not splits:
    return None
  tables = {name: _read_table(root / name / _MARKER) for name in splits}
  names = [name for table in tables.values() for name in table.values()]
  classes, ids, notes = contents.choose(root, names)
  found, faults = {}, []
  for folder, split in splits.items():
    labels = finding.list_folder(root / folder, ends=("_mask",))
    # A mask has the id of its image, and where there is none takes its place.
    images = finding.list_folder(root / folder, ends=("", "_mask"))
    photos = {
        name: path
        for name, path in images.files.items()
        if path != labels.files.get(name)
    }
    pairs, of_split = finding.match(
        dataclasses.replace(images, files=photos), labels
    )
    faults += of_split
    decode = contents.decode_by(
        {value: ids[name] for value, name in tables[folder].items()},
        where=root / folder / _MARKER,
    )
    found[split] = contents.decoded(pairs, decode)
  notes.insert(0, f"{root}: found a Roboflow export ({_MARKER}).")
  markers = [root / name / _MARKER for name in splits]
  return contents.Contents(classes, found, faults, notes, markers)


def _read_table(path: pathlib.Path) -> dict[int, str]:
  """Returns the class of each value."""
  table = {}
  lines = files.read_text(path, what=_WHAT).splitlines()
  rows = csv.reader(lines[1:], skipinitialspace=True)
  for number, row in enumerate(rows, start=2):
    value, name = (*(field.strip() for field in row), "", "")[:2]
    if not any(row):
      continue
    if len(row) != 2 or not value.isdecimal() or int(value) > 255 or not name:
      raise errors.UserError(
          f"{path}:{number}: found {', '.join(row)[:80]!r}; expected {_WHAT}. "
          "Mend the line."
      )
    table[int(value)] = name
  return dict(sorted(table.items()))
