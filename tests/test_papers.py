"""The papers' tables: every row is a command, and the page has them all."""

import dataclasses
import re
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from benchmarks import page
from benchmarks import sizes
from benchmarks.papers import catalogue
from benchmarks.papers import document
from benchmarks.papers import scenes
from benchmarks.papers.row import Paper
from benchmarks.papers.row import Reading
from benchmarks.papers.row import Row
from benchmarks.papers.row import Table
from ctxseg_jax import describe
from ctxseg_jax import errors
from ctxseg_jax import options

REMEDY = "run: python -m benchmarks.papers"

FCN = Row("FCN", "44.8 mIoU", "camvid/encnet.py:r50,fcn")
VIEWS = Row("MS", "a | b", "camvid/encnet.py:r50", "--flip", "40 mIoU, 3 seeds")
SAMPLE = Paper(
    "SampleNet",
    'A. Sample, "A paper", 2000, https://example.org.',
    (
        Table("Table 1", "ablation", (FCN, VIEWS), "All of them."),
        Table("Figure 2", "curve", (FCN,)),
    ),
    (Reading("gate", "A product,\nor a sum.", "`model.head.gate=sum`"),),
)


def with_rows(*rows):
  return dataclasses.replace(SAMPLE, tables=(Table("Table 1", "", rows),))


class CatalogueTest(parameterized.TestCase):

  def test_rows_of_the_papers_name_configs_once(self):
    for paper in catalogue.load():
      catalogue.check(paper)

  def test_networks_that_a_paper_quotes_have_the_commands_of_their_own(self):
    commands = {
        paper.name: {
            (row.config, row.evaluate)
            for table in paper.tables
            for row in table.rows
        }
        for paper in catalogue.load()
    }
    quoted = 0
    for paper in catalogue.load():
      for row in (row for table in paper.tables for row in table.rows):
        own = row.label.split(",")[0]
        if own != paper.name and own in commands:
          quoted += 1
          self.assertIn((row.config, row.evaluate), commands[own], paper.name)
    self.assertEqual(quoted, 3)  # SANet's paper quotes EncNet three times.

  @parameterized.parameters(
      ("camvid/none.py", "configs/camvid/none.py: there is no such file"),
      ("camvid", "configs/camvid: there is no such file"),
      ("camvid/encnet.py:r5", "camvid/encnet.py: unknown variant 'r5'; known:"),
      ("camvid/encnet.py:", ""),
  )
  def test_a_config_that_does_not_exist_is_named(self, config, message):
    paper = with_rows(FCN, Row("Enc", "1", config))
    if not message:
      catalogue.check(paper)
      return
    with self.assertRaisesRegex(
        errors.UserError, f"^SampleNet, Table 1, 'Enc': .*{message}"
    ):
      catalogue.check(paper)

  @parameterized.parameters(
      ((), "Table 1: no rows"),
      ((VIEWS, dataclasses.replace(FCN, label="MS")), "'MS' occurs twice"),
      (
          (VIEWS, dataclasses.replace(VIEWS, label="M")),
          "'camvid/encnet.py:r50 --flip' occurs twice",
      ),
  )
  def test_what_occurs_twice_is_refused(self, rows, message):
    with self.assertRaisesRegex(errors.UserError, message):
      catalogue.check(with_rows(*rows))

  def test_a_claim_without_results_is_refused(self):
    message = "context_scenes.md: no row of 'foo'; run: python -m benchmarks"
    with self.assertRaisesRegex(errors.UserError, message):
      scenes.table({"fcn": ("FCN", ""), "foo": ("Foo", "")})

  def test_two_tables_of_one_name_are_refused(self):
    tables = SAMPLE.tables[:1] * 2
    with self.assertRaisesRegex(errors.UserError, "'Table 1' occurs twice"):
      catalogue.check(dataclasses.replace(SAMPLE, tables=tables))


class ReadingsTest(absltest.TestCase):

  def test_options_of_readings_exist(self):
    known = {row.key for _, rows in options.sections() for row in rows}
    self.assertIn("model.head.channels", known)
    for paper in catalogue.load():
      for reading in paper.readings:
        keys = re.findall(
            r"\b((?:model\.(?:head|backbone)|data|eval|optim)"
            r"\.[a-z_.]*[a-z])\b(?!\.)",
            reading.option,
        )
        for key in keys:
          if not key.endswith(".name"):  # Chosen by them, and no row.
            self.assertIn(key, known, f"{paper.name}: {reading.system}")


class DocumentTest(absltest.TestCase):

  def test_the_page_is_up_to_date_but_for_its_sizes(self):
    text = page.read_table(document.PAGE)
    cells = document.read_cells(text)
    papers = catalogue.load()
    rows = [row for p in papers for table in p.tables for row in table.rows]
    self.assertContainsSubset({row.config for row in rows}, cells, REMEDY)
    self.assertEqual(document.render(papers, cells.get), text, REMEDY)

  def test_rows_commands_and_readings(self):
    cells = {FCN.config: "1,234 | 0.10 G, 8x9", VIEWS.config: "5 | 1.00 G, 8x8"}
    text = document.render([SAMPLE], cells.get)
    self.assertEqual(document.read_cells(text), cells)
    fcn = (
        "| FCN | 44.8 mIoU |"
        " `train.py --config configs/camvid/encnet.py:r50,fcn` |"
        " 1,234 | 0.10 G, 8x9 | not trained yet |"
    )
    views = (
        r"| MS | a \| b | `train.py --config configs/camvid/encnet.py:r50`;"
        " `eval.py --flip` | 5 | 1.00 G, 8x8 | 40 mIoU, 3 seeds |"
    )
    reading = "| gate | A product, or a sum. | `model.head.gate=sum` |"
    header = document._ROWS
    self.assertEqual(
        text.split("\n\n"),
        [
            "## SampleNet",
            SAMPLE.citation,
            "### Table 1: ablation",
            "All of them.",
            f"{header}\n{fcn}\n{views}",
            "### Figure 2: curve",
            f"{header}\n{fcn}",
            "### Readings",
            f"{document._READINGS}\n{reading}",
        ],
    )

  def test_equal_networks_are_counted_once(self):
    with mock.patch.object(
        describe, "describe", return_value=dict(parameters=1234, macs=1e8)
    ) as counted:
      found = {
          sizes.size(sizes.config(f"camvid/encnet.py:{x}")).cells()
          for x in ("r50,fcn", "fcn,r50")
      }
      sizes.size(sizes.config("camvid/encnet.py:fcn"))
    sizes._size.cache_clear()
    self.assertEqual(found, {"1,234 | 0.10 G, 360x360"})
    self.assertEqual(counted.call_count, 2)


@pytest.mark.slow
class SizesTest(absltest.TestCase):

  def test_the_page_has_the_sizes_of_the_networks(self):
    cells = document.read_cells(page.read_table(document.PAGE))
    found = {x: sizes.size(sizes.config(x)).cells() for x in cells}
    self.assertEqual(found, cells, REMEDY)


if __name__ == "__main__":
  absltest.main()
