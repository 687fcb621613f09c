"""CVAT's export "Segmentation mask 1.1".

    labelmap.txt                        a line per class: `name:R,G,B::`
    JPEGImages/a.jpg                    with "Save images" alone
    SegmentationClass/a.png             colours of labelmap.txt, or line numbers
    ImageSets/Segmentation/default.txt  names without suffix, a list per subset

Reference: https://docs.cvat.ai/docs/dataset_management/formats/format-smask.
Black is the background there, also where labelmap.txt leaves it out.
"""

from collections.abc import Mapping
import pathlib

from ctxseg_jax import errors
from ctxseg_jax import files
from ctxseg_jax.data import classes as classes_lib
from ctxseg_jax.data import finding
from ctxseg_jax.data.exports import contents

_BLACK = (0, 0, 0)
_BACKGROUND = "background"
_LABEL_MAP = "a text file of CVAT, a class per line as name:R,G,B::"


def read(root: pathlib.Path) -> contents.Contents | None:
  """Reads an export; see `exports`."""
  label_map = root / "labelmap.txt"
  if not label_map.is_file() or not (root / "SegmentationClass").is_dir():
    return None
  palette = _read_label_map(label_map)
  classes, ids, notes = contents.choose(root, palette, palette)
  decode = _decoder(label_map, palette, ids)
  if not (root / "JPEGImages").is_dir():
    raise errors.UserError(
        f"{root / 'JPEGImages'}: no such folder; expected the images. Export "
        'from CVAT again with "Save images", or put them there.'
    )
  images, labels = (
      finding.list_folder(root / name, with_subfolder=True)
      for name in ("JPEGImages", "SegmentationClass")
  )
  found, faults, listed = {}, [], set()
  lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
  for path in lists:
    split = contents.split_of(path.stem)
    if split is None or split in found:
      raise errors.UserError(
          f"{path}: found a list named {path.stem!r}; expected one each of "
          "train (or default), val and test. Rename or remove it."
      )
    of_split = [
        line.strip().strip('"')  # Names with blanks may be in quotes.
        for line in files.read_text(path).splitlines()
        if line.strip()
    ]
    listed |= {*of_split}
    found[split], of_list = finding.match(images, labels, of_split)
    faults += of_list
  if not lists:
    found["train"], faults = finding.match(images, labels)
  elif len(left := images.files.keys() - listed):
    notes.append(
        f"{root}: {len(left)} images are in no list of ImageSets/Segmentation, "
        f"such as {min(left)}; they are left out."
    )
  found = {s: contents.decoded(pairs, decode) for s, pairs in found.items()}
  notes.insert(0, f"{root}: found a CVAT export (labelmap.txt).")
  return contents.Contents(classes, found, faults, notes, [label_map, *lists])


def _decoder(
    label_map: pathlib.Path,
    palette: Mapping[str, classes_lib.Color],
    ids: Mapping[str, int],
) -> contents.Decode:
  """Returns the decoder of masks, of colours or of numbers of lines."""
  lines = {color: line for line, color in enumerate(palette.values())}
  names = [*palette]
  if _BLACK not in lines:
    is_class = _BACKGROUND in names
    lines[_BLACK] = names.index(_BACKGROUND) if is_class else contents.IGNORE
  table = {contents.IGNORE: contents.IGNORE}
  table |= {line: ids[name] for line, name in enumerate(names)}
  return contents.decode_by(table, where=label_map, colors=lines)


def _read_label_map(path: pathlib.Path) -> dict[str, classes_lib.Color]:
  """Returns the colour of each class, in the order of the file."""
  palette = {}
  for number, line in enumerate(files.read_text(path).splitlines(), start=1):
    if not line.strip() or line.startswith("#"):
      continue
    name, *fields = (field.strip() for field in line.split(":"))
    numbers = fields[0].split(",") if fields else []
    color = tuple(int(n) for n in numbers if n.strip().isdecimal())
    if not name or len(color) != 3 or len(numbers) != 3 or max(color) > 255:
      raise errors.UserError(
          f"{path}:{number}: found {line[:80]!r}; expected {_LABEL_MAP}. "
          "Complete the line."
      )
    if name in palette or color in palette.values():
      raise errors.UserError(
          f"{path}:{number}: {line[:80]!r} repeats a name or colour; expected "
          "each once. Change it in CVAT and export again."
      )
    palette[name] = color
  return palette
