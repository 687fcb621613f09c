"""What the README and the pages under docs/ show works."""

import pathlib
import re

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import test_configs

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", *map(str, ROOT.glob("docs/*.md")))
CONFIG = r"(configs/[\w/]+\.py)(?::([\w,]+))?"


def read(page):
  return (ROOT / page).read_text("utf-8")


def examples(page):
  """Returns the examples in Python of a page."""
  return re.findall(r"^```python\n(.*?)^```", read(page), re.S | re.M)


class PagesTest(parameterized.TestCase):

  def test_the_readme_is_short(self):
    self.assertLessEqual(len(read("README.md").splitlines()), 150)

  def test_the_loop_of_the_readme_learns(self):
    (example,) = examples("README.md")
    names = {}
    exec(example, names)
    self.assertLess(float(names["loss"]), 0.9 * np.log(2))

  def test_figures_of_own_maps(self):
    *_, example = examples("docs/evaluation.md")
    example = example.splitlines()
    example[-1] = f"miou = {example[-1]}"
    labels = np.array([[[0, 0], [1, 255]]])
    names = dict(labels=labels, predictions=labels % 255, num_classes=2)
    exec("\n".join(example), names)
    self.assertEqual(names["miou"], 1.0)

  def test_links_and_configs_are_there(self):
    for page in PAGES:
      text = read(page)
      for link in re.findall(r"\]\(([\w./]+)\)", text):
        self.assertTrue((ROOT / page).parent.joinpath(link).exists(), link)
      for path, variants in re.findall(CONFIG, text):
        if path in test_configs.PATHS:
          test_configs.load(path).get_config(variants)
        else:
          self.assertTrue((ROOT / path).exists(), path)


if __name__ == "__main__":
  absltest.main()
