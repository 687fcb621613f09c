"""Lists every config: its size, what is published, and what we reached.

  python -m benchmarks.systems

Describes the network of every config under `configs/`, but for users' own data,
and of every variant with a reference or result of its own, reads the docstring
for both, and writes the table in docs/systems.md between its two markers. No
data set is needed and nothing is trained.
"""

import importlib
import pathlib
import re
from typing import Any

from absl import flags

from benchmarks import page
from benchmarks import sizes
from ctxseg_jax import commands

HEADER = """\
| config | parameters | MACs of one crop | published | ours |
| --- | --- | --- | --- | --- |"""


def paths() -> list[pathlib.Path]:
  """Returns the files of all configs but that of users' own classes."""
  return [
      path
      for path in sorted(pathlib.Path("configs").rglob("*.py"))
      if path.name
      not in ("__init__.py", "common.py", "custom.py", "recipes.py")
  ]


def statement(doc: str, label: str, variant: str = "") -> str:
  """Returns what a docstring states as the reference or the result.

  Args:
    doc: Paragraphs "Reference: ..." and "Ours: ...", and those of variants,
      "Reference of `r101`: ...". They extend to the next one.
    label: "Reference" or "Ours".
    variant: A variant, which has the general one if it has none of its own.
  """
  found = ""
  start = r"^(Reference|Ours)(?: of (`.*?))?: "
  following = r"^(?:Reference|Ours)(?:: | of `)"
  for name, of, text in re.findall(
      rf"{start}(.*?)(?={following}|\Z)", doc, re.S | re.M
  ):
    if name == label and (not of or f"`{variant}`" in of):
      found = " ".join(text.split())
  return found


def variants(doc: str) -> list[str]:
  """Returns "" and the variants with a reference or result of their own."""
  labels = re.findall(r"^(?:Reference|Ours) of (.*?):", doc, re.M)
  names = [x for label in labels for x in re.findall(r"`(.*?)`", label)]
  return list(dict.fromkeys(["", *names]))


def row(path: pathlib.Path, module: Any, variant: str) -> str:
  """Returns the line of the table of a config and variant."""
  # The page says it once for all.
  published = statement(module.__doc__, "Reference", variant).replace(
      " From ImageNet weights.", ""
  )
  name = f"{path.relative_to('configs')}{':' if variant else ''}{variant}"
  size = sizes.size(module.get_config(variant))
  ours = statement(module.__doc__, "Ours", variant)
  return f"| `{name}` | {size.cells()} | {published} | {ours} |"


def main(argv):
  del argv
  lines = [HEADER]
  for path in paths():
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    for variant in variants(module.__doc__):
      lines.append(row(path, module, variant))
      print(lines[-1], flush=True)
  page.write_table(pathlib.Path(flags.FLAGS.output), "\n".join(lines))


if __name__ == "__main__":
  # Not on import: a process may import several commands.
  flags.DEFINE_string("output", "docs/systems.md", "The page.")
  commands.run(main)
