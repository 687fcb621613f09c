"""Writes the tables of the papers, row by row, with the command of each.

  python -m benchmarks.papers

Describes the network of every row, each network once, and writes docs/papers.md
between its two markers. No data set is needed and nothing is trained.
"""

import pathlib

from absl import flags

from benchmarks import page
from benchmarks import sizes
from benchmarks.papers import catalogue
from benchmarks.papers import document
from ctxseg_jax import commands


def main(argv):
  del argv
  papers = catalogue.load()
  for paper in papers:
    catalogue.check(paper)

  def cells(name):
    found = sizes.size(sizes.config(name)).cells()
    print(f"{name} | {found}", flush=True)
    return found

  text = document.render(papers, cells)
  page.write_table(pathlib.Path(flags.FLAGS.output), text)


if __name__ == "__main__":
  flags.DEFINE_string("output", str(document.PAGE), "The page.")
  commands.run(main)
