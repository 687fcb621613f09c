"""A report in a real browser: tables, slider and tabs do what they should."""

import pathlib
import re
import tempfile

from absl.testing import absltest
import chromium
import pytest
import test_report

from ctxseg_jax.evaluation import report

webdriver = pytest.importorskip("selenium.webdriver")
if chromium.is_missing():
  pytest.skip("chromium or chromedriver is missing", allow_module_level=True)
pytestmark = pytest.mark.slow


class ReportPageTest(absltest.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(folder)
    cls.driver = cls.enterClassContext(
        chromium.driven(webdriver, cls.folder / "profile")
    )

  def show(self, *runs, pictures=()):
    path = self.folder / "page.html"
    path.write_text(report.render("title", runs, pictures))
    self.driver.get("about:blank")
    self.driver.get(path.as_uri())

  def tearDown(self):
    # Errors of the script, refused loads and the like.
    self.assertEmpty(self.driver.get_log("browser"))
    super().tearDown()

  def find(self, selector):
    return self.driver.find_element("css selector", selector)

  def texts(self, selector):
    found = self.driver.find_elements("css selector", selector)
    return [x.text for x in found if x.is_displayed()]

  def open(self, name):
    self.find(f"#tab-{name}").click()

  def test_one_panel_shows_at_a_time(self):
    self.show(test_report.make_run(), pictures=test_report.make_pictures())
    for tab in self.driver.find_elements("css selector", "[role=tab]"):
      tab.click()
      panels = self.driver.find_elements("css selector", "[role=tabpanel]")
      shown = [x.get_attribute("id") for x in panels if x.is_displayed()]
      self.assertEqual(shown, [tab.get_attribute("aria-controls")])
      self.assertNotEmpty(self.find(f"#{shown[0]}").text)
    self.open("confusion")
    webdriver.ActionChains(self.driver).move_to_element(
        self.find("[data-cell='0,1']")
    ).perform()
    count = test_report.make_report()["confusion_matrix"][0, 1]
    self.assertIn(f"road predicted as car: {count:,}", self.find("#cell").text)

  def test_a_click_on_a_title_sorts(self):
    run = test_report.make_run()
    self.show(run)
    self.open("classes")
    names = "#classes tbody td:first-child"
    self.assertEqual(self.texts(names), list(test_report.NAMES))
    title = self.find("#classes th:nth-child(5) button")  # Labelled pixels.
    pixels = run["report"]["confusion_matrix"].sum(axis=1)
    ordered = [test_report.NAMES[i] for i in (-pixels).argsort(kind="stable")]
    for expected in (ordered, ordered[::-1]):
      title.click()
      self.assertEqual(self.texts(names), expected)
    self.find("#classes th:nth-child(3) button").click()  # Recall.
    self.assertEqual(self.texts(names)[-1], test_report.HOSTILE)  # Undefined.

  def test_the_slider_divides_truth_from_prediction(self):
    self.show(test_report.make_run(), pictures=test_report.make_pictures())
    self.open("images")
    self.assertLen(self.texts(".card"), 12)
    viewer = self.find(".viewer")
    labels = ("truth", "prediction")
    self.assertSequenceEqual(self.texts(".viewer span")[:2], labels)
    webdriver.ActionChains(self.driver).move_to_element_with_offset(
        viewer, viewer.size["width"] // 4, 0
    ).click().perform()
    cuts = [
        self.find(f".viewer .{side}").value_of_css_property("clip-path")
        for side in ("label", "prediction")
    ]
    # Truth is cut at the right and the prediction at the left, at one place.
    right = float(re.search(r"([\d.]+)(%|\))", cuts[0])[1])
    left = float(re.fullmatch(r"inset\(0px 0px 0px ([\d.]+)%\)", cuts[1])[1])
    self.assertBetween(left, 70, 80)
    self.assertAlmostEqual(left + right, 100, delta=1e-3)
    self.find("#sides option:last-child").click()
    self.assertSequenceEqual(
        self.texts(".viewer span")[:2], ("photograph", "truth")
    )
    self.assertFalse(self.find(".viewer .prediction").is_displayed())

  def test_two_runs_stand_side_by_side(self):
    self.show(test_report.make_run("a"), test_report.make_run("b", seed=1))
    self.assertContainsSubset(("a", "b"), self.texts("#summary th"))
    self.open("config")
    self.assertIn("optim.learning_rate 0 1", self.texts("#config tbody tr"))
    self.open("images")
    self.assertLen(self.texts("#images tbody tr"), 20)


if __name__ == "__main__":
  absltest.main()
