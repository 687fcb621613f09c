"""Lists every config: its size, what is published, and what we reached.

  python -m benchmarks.systems

Describes the network of every config under `configs/`, but for users' own data,
reads the docstring for reference and result, and writes the table in
docs/systems.md between its two markers. No data set is needed and nothing is
trained.
"""

import importlib
import pathlib
import re
from typing import Any

from absl import flags

from benchmarks import page
from ctxseg_jax import commands

_OUTPUT = flags.DEFINE_string("output", "docs/systems.md", "The page.")

HEADER = """\
| config | parameters | MACs of one crop | published | ours |
| --- | --- | --- | --- | --- |"""


def paths() -> list[pathlib.Path]:
  """Returns the files of all configs but that of users' own classes."""
  return [
      path
      for path in sorted(pathlib.Path("configs").rglob("*.py"))
      if path.name not in ("__init__.py", "common.py", "custom.py")
  ]


def said(doc: str, name: str) -> str:
  """Returns what a docstring says after `name:`, up to the next such word."""
  found = re.search(rf"\b{name}:\s(.*?)(?=\s(?:Reference|Ours):|\Z)", doc, re.S)
  return " ".join(found[1].split()) if found else ""


def row(path: pathlib.Path) -> str:
  """Returns a config's line of the table."""
  from ctxseg_jax import describe
  from ctxseg_jax import experiment
  from ctxseg_jax.models import network

  module: Any = importlib.import_module(".".join(path.with_suffix("").parts))
  config = module.get_config().to_dict()
  model = network.build(
      config["model"],
      experiment.dataset(config).num_classes,
      bn_axis_name=None,
  )
  # The page says it once for all.
  published = said(module.__doc__, "Reference").replace(
      " From ImageNet weights.", ""
  )
  size = config["data"]["crop_size"]
  report = describe.describe(model, size)
  return (
      f"| `{path.relative_to('configs')}` | {report['parameters']:,} |"
      f" {report['macs'] / 1e9:.2f} G, {size[0]}x{size[1]} |"
      f" {published} | {said(module.__doc__, 'Ours')} |"
  )


def main(argv):
  del argv
  lines = [HEADER]
  for path in paths():
    lines.append(row(path))
    print(lines[-1], flush=True)
  page.write_table(pathlib.Path(_OUTPUT.value), "\n".join(lines))


if __name__ == "__main__":
  commands.run(main)
