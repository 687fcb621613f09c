"""The reference of options is complete and up to date."""

import pathlib

from absl.testing import absltest

from configs import quickstart
from ctxseg_jax import experiment
from ctxseg_jax import options

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "options.md"


class OptionsTest(absltest.TestCase):

  def test_the_page_is_the_one_of_this_code(self):
    self.assertEqual(
        PAGE.read_text(),
        options.page() + "\n",
        "run: python -m ctxseg_jax.describe --options --markdown >"
        " docs/options.md",
    )

  def test_every_option_has_a_meaning(self):
    for title, rows in options.sections():
      for row in rows:
        self.assertTrue(row.meaning, f"{title}: {row.key}")

  def test_every_key_of_a_complete_config_is_listed(self):
    known = {row.key for _, rows in options.sections() for row in rows}

    def check(tree, prefix=""):
      for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in ("model.norm", "optim.schedule") or (
            name in ("data", "model", "optim", "eval", "init_from")
            or name in ("model.backbone", "model.head")
        ):
          check(value, f"{name}.")
        elif name != "loss" and not name.endswith(".name"):
          self.assertIn(name, known)

    check(experiment.parse(quickstart.get_config()).config)


if __name__ == "__main__":
  absltest.main()
