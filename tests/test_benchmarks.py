"""Benchmarks write what was measured and nothing else."""

import pathlib
import tempfile

from absl.testing import absltest

from benchmarks import context_scenes
from benchmarks import head_cost
from benchmarks import head_memory
from benchmarks import networks
from benchmarks import page
from benchmarks import systems
from configs import context_scenes as config_lib
from ctxseg_jax import errors
from ctxseg_jax import experiment
from ctxseg_jax.models import heads


def make_row(name, miou, **fields):
  values = dict(
      right=[25.4 if m is not None else None for m in miou],
      parameters=167_976,
      macs=170,
      images_per_second=61.6,
  )
  return context_scenes.Row(name, miou, **(values | fields))


class BenchmarksTest(absltest.TestCase):

  def _folder(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    return pathlib.Path(folder.name)

  def test_gain_spread_and_bound(self):
    rows = [
        make_row("fcn", [37.0, 38.5, 38.5]),
        make_row("encnet", [95.0, 96.0, 97.0], right=[96.0, 97.0, 98.0]),
        make_row("frail", [None, 50.0, 40.0], images_per_second=None),
        make_row("broken", [None, None, None]),
    ]
    lines = context_scenes.table(rows).splitlines()[2:]
    names = [line.split("|")[1].strip() for line in lines]
    self.assertEqual(
        names,
        [
            "`encnet`",
            "`frail`",
            "*best possible in an 81x81 window*",
            "`fcn`",
            "`broken`",
        ],
    )
    self.assertEqual(
        lines[0],
        "| `encnet` | 95.00, 96.00, 97.00 | 96.00 | 2.00 | +58.00 |"
        " 96, 97, 98 % | 167,976 | 170 M | 62 |",
    )
    # The mean is of the runs that ended; the others are told.
    self.assertIn(
        "| diverged, 50.00, 40.00 | 45.00 | 10.00 | +7.00 |", lines[1]
    )
    self.assertEndsWith(lines[1], "| 170 M | - |")
    self.assertIn("| diverged, diverged, diverged | nan | - |", lines[4])
    again = context_scenes.read_table("\n".join(lines))
    self.assertEqual([r.images_per_second for r in again], [62, None, 62, 62])

  def test_the_cost_of_every_head_can_be_measured(self):
    others = {"deeplabv2_concat", "encoding_aux", "fcn_vgg", "pooled"}
    self.assertEqual({*networks.HEADS}, {*heads.HEADS} - others)
    shape = networks.Shape((64, 64))
    for head in networks.HEADS:
      config = networks.with_head(head, 50, shape)
      self.assertEqual(experiment.parse(config).batch_size, 2)
    row = dict(head="fcn", parameters=2e6, macs=3e9, seconds=[1.0, 3.0, 2.0])
    table = head_cost.to_table([row | {"times_fcn": [0.9, 1.0, 1.2]}])
    self.assertIn("| 2000 ms | 1.00 (0.90 to 1.20) |", table)

  def test_rows_that_are_not_measured_again_stay(self):
    document = (pathlib.Path("docs") / context_scenes.PAGE).read_text()
    old = document.split(page.MARKERS[0])[1].split(page.MARKERS[1])[0].strip()
    before = context_scenes.read_table(old)
    known = context_scenes.choose(None)
    self.assertContainsSubset({row.name for row in before}, known)
    self.assertGreater(len(before), 22)
    again, _ = context_scenes.merge(old, "", [])
    self.assertEqual(*map(context_scenes.read_table, (old, again)))
    frail = make_row("frail", [None, 50.0], right=[None, 40.0], macs=1234)
    both, rows = context_scenes.merge(old, "On a toaster.", [frail])
    self.assertLen(rows, len(before) + 1)
    self.assertIn("\n`frail` later: On a toaster.\n", both)
    self.assertIn("| diverged, 50.00 |", both)
    fcn = make_row("fcn", [40.0])
    last, rows = context_scenes.merge(both, "Now.", [fcn])
    self.assertLen(rows, len(before) + 1)
    self.assertIn("| `frail` | diverged, 50.00 | 50.00 | - | +10.00 |", last)
    self.assertIn("| `fcn` | 40.00 | 40.00 | - | +0.00 | 25 % |", last)
    self.assertStartsWith(last, old.partition("\n")[0])
    # A note is of rows that are as it says.
    other = make_row("other", [1.0])
    last, _ = context_scenes.merge(both, "Now.", [frail, other])
    self.assertIn("\n`frail`, `other` later: Now.\n", last)
    self.assertNotIn("toaster", last)

  def test_an_unknown_variant_is_refused(self):
    with self.assertRaisesRegex(errors.UserError, "--variants: unknown 'foo'"):
      context_scenes.choose(["encnet", "foo"])
    self.assertLen(context_scenes.choose(None), 27)

  def test_the_table_takes_its_place_and_leaves_the_text(self):
    path = self._folder() / "page.md"
    begin, end = page.MARKERS
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    page.write_table(path, "new")
    self.assertEqual(path.read_text(), f"before\n{begin}\nnew\n{end}\nafter\n")
    path.write_text("no place\n")
    with self.assertRaisesRegex(errors.UserError, "page.md: expected '<!-- t"):
      page.write_table(path, "new")
    self.assertEqual(path.read_text(), "no place\n")

  def test_variants_have_their_own_reference_or_the_general_one(self):
    doc = (
        "A network.\n\nReference: 1 (the paper, Reference\nof it).\n"
        "Reference of `a` and `a,b`: 2.\nOurs: 3.\nOurs of `c`: 4.\n"
    )
    self.assertEqual(systems.variants(doc), ["", "a", "a,b", "c"])
    for name, reference, ours in (
        ("", "1 (the paper, Reference of it).", "3."),
        ("a,b", "2.", "3."),
        ("c", "1 (the paper, Reference of it).", "4."),
    ):
      self.assertEqual(systems.statement(doc, "Reference", name), reference)
      self.assertEqual(systems.statement(doc, "Ours", name), ours)

  def test_the_plot_is_a_picture(self):
    path = self._folder() / "heads.png"
    rows = [make_row("fcn", [37.0, 38.5]), make_row("broken", [None, None])]
    context_scenes.plot(rows, path)
    self.assertStartsWith(path.read_bytes(), b"\x89PNG")

  def test_memory_is_compared_with_the_naive_forms(self):
    for part, naive, ours in head_memory.compare(batch=1, positions=3600):
      self.assertGreater(naive, 2 * ours, part)

  def test_every_context_head_takes_part(self):
    from ctxseg_jax.models.heads import HEADS

    used = {
        config_lib.get_config(name).model.head.name
        for name in config_lib.VARIANTS
    }
    # Of another task, for VGG16, an auxiliary, and a variant of deeplabv2.
    others = {"pooled", "fcn_vgg", "encoding_aux", "deeplabv2_concat"}
    self.assertSameElements(used | others, HEADS)


if __name__ == "__main__":
  absltest.main()
