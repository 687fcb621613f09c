"""The page of a report holds what it should, and nothing gets out of it."""

import base64
import html.parser
import io
import json
import re

from absl.testing import absltest
import numpy as np
from PIL import Image

from ctxseg_jax.data.datasets import context_scenes
from ctxseg_jax.evaluation import metrics
from ctxseg_jax.evaluation import report
from ctxseg_jax.evaluation import report_pictures

HOSTILE = "</script><script>alert(1)</script><!-- $title & 'x' \"y\""
NAMES = ("road", "car", HOSTILE)
IMAGES = [f"frame {i}" for i in range(19)] + [HOSTILE]


def make_report(seed=0, step=20):
  """Returns a report of three classes and twenty images."""
  rng = np.random.default_rng(seed)
  confusion = rng.integers(1, 1000, (3, 3)) + np.diag([9000, 5000, 0])
  confusion[2] = 0  # Absent from the labels.
  scores = {
      name: rng.uniform(size=len(IMAGES)).round(5)
      for name in ("miou", "accuracy", "confidence")
  }
  scores["miou"][7] = np.nan
  return metrics.scores(confusion) | {
      "step": step,
      "task": "segmentation",
      "dataset": "streets",
      "split": "val",
      "procedure": "whole, scales 1",
      "num_images": len(IMAGES),
      "images_per_second": 3.5,
      "class_names": list(NAMES),
      "palette": [[128, 64, 128], [0, 0, 142], [1, 2, 3]],
      "references": {"a guess": 0.25},
      "confusion_matrix": confusion,
      "calibration": metrics.calibration(rng.integers(0, 99, (2, 256))),
      "images": {"name": IMAGES, **scores},
  }


def make_run(name="run", seed=0):
  metrics_rows = [
      {"step": i, "loss/total": 2.0 / i, "learning_rate": 0.1, "eval/x": None}
      for i in range(1, 3001)
  ]
  evaluations = [{"step": 10, "miou": 0.5}, {"step": 20, "miou": 0.25}]
  config = {"total_steps": 20, "optim": {"name": "sgd", "learning_rate": seed}}
  return report.describe_run(
      name, make_report(seed), config, metrics_rows, evaluations
  )


def make_pictures(size=(60, 80), indices=range(20)):
  rng = np.random.default_rng(0)
  spec = context_scenes.SPEC
  kept = {
      i: (
          rng.integers(0, 256, (*size, 3), np.uint8),
          np.where(rng.uniform(size=size) < 0.1, 255, 1).astype(np.uint8),
          rng.integers(0, 3, size).astype(np.uint8),
          IMAGES[i],
      )
      for i in indices
  }
  return report_pictures.encode(kept, make_report(), spec)


class Page(html.parser.HTMLParser):
  """Elements by id, scripts, and what any attribute would load."""

  def __init__(self, text):
    super().__init__()
    self.ids = {}
    self.scripts = []
    self.loads = []
    self._inside = None
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.ids[attrs.get("id")] = (tag, attrs)
    self.loads += [attrs[x] for x in ("src", "href") if x in attrs]
    self._inside = tag
    if tag == "script":
      self.scripts.append((attrs.get("type"), ""))

  def handle_endtag(self, tag):
    self._inside = None

  def handle_data(self, data):
    if self._inside == "script":
      kind, text = self.scripts[-1]
      self.scripts[-1] = (kind, text + data)


class PageTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.text = report.render(HOSTILE, [make_run()], make_pictures())
    self.page = Page(self.text)

  def test_every_tab_has_its_panel(self):
    tabs = [x for x in self.page.ids.values() if x[1].get("role") == "tab"]
    self.assertLen(tabs, 6)
    for _, attributes in tabs:
      tag, panel = self.page.ids[attributes["aria-controls"]]
      self.assertEqual((tag, panel["role"]), ("section", "tabpanel"))
      self.assertEqual(panel["aria-labelledby"], attributes["id"])

  def test_nothing_is_loaded(self):
    self.assertEmpty(self.page.loads)
    self.assertIn("default-src 'none'", self.text)
    addresses = re.findall(r"\w+://[^\"'\s]+", self.text)
    self.assertEqual(addresses, ["http://www.w3.org/2000/svg"])  # A name.

  def test_names_stay_data(self):
    (kind, data), (no_kind, _) = self.page.scripts
    self.assertEqual((kind, no_kind), ("application/json", None))
    [run] = json.loads(data)["runs"]
    self.assertEqual(run["report"]["class_names"], list(NAMES))
    self.assertEqual(run["report"]["images"]["name"], IMAGES)
    self.assertIsNone(run["report"]["accuracy"][2])  # NaN is no JSON.
    self.assertNotIn("<script>alert", self.text)

  def test_long_curves_keep_their_ends(self):
    run = make_run()
    steps, values = run["losses"]["total"]
    self.assertLen(steps, 400)
    self.assertEqual(steps[-1], np.mean(range(2994, 3001)))
    self.assertAlmostEqual(values[-1], 2 / 2997, places=6)
    self.assertEqual(run["best"], [10, 0.5])


class PicturesTest(absltest.TestCase):

  def test_the_worst_and_the_best_are_shown_with_exact_classes(self):
    scores = make_report()["images"]["miou"]
    order = [i for i in np.argsort(scores) if i != 7]  # NaN is no score.
    shown = make_pictures()
    self.assertEqual(
        [(x["group"], x["index"]) for x in shown],
        [("worst", i) for i in order[:6]]
        + [("best", i) for i in order[:-7:-1]],
    )
    self.assertEqual(shown[0]["name"], IMAGES[order[0]])
    with open_uri(shown[0]["label_map"]) as image:
      self.assertEqual(set(np.unique(np.asarray(image))), {1, 255})
    with open_uri(shown[0]["image"]) as image:
      self.assertEqual((image.format, image.size), ("JPEG", (80, 60)))

  def test_few_images_are_shown_once(self):
    shown = make_pictures(indices=(1, 3, 5, 7))
    self.assertCountEqual([x["index"] for x in shown], (1, 3, 5))

  def test_a_page_of_large_images_is_small(self):
    shown = make_pictures(size=(2000, 1500), indices=(0,))
    [picture] = shown
    self.assertEqual(picture["size"], (540, 720))
    # Noise is the worst there is; photographs take a quarter of it.
    self.assertLess(len(json.dumps(picture)), 1e6)


def open_uri(uri):
  kind, _, data = uri.partition(";base64,")
  assert kind in ("data:image/jpeg", "data:image/png")
  return Image.open(io.BytesIO(base64.b64decode(data)))


if __name__ == "__main__":
  absltest.main()
