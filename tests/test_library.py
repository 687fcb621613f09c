"""The package as other programs use it."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from absl.testing import absltest
import numpy as np
import tiny

import ctxseg_jax
from ctxseg_jax import errors
from ctxseg_jax.data.datasets import context_scenes


class LibraryTest(absltest.TestCase):

  def test_the_public_names_are_there(self):
    for name in ctxseg_jax.__all__:
      self.assertIsNotNone(getattr(ctxseg_jax, name), name)
      self.assertIn(name, dir(ctxseg_jax))
    with self.assertRaisesRegex(AttributeError, "lod"):
      ctxseg_jax.lod  # noqa: B018

  def test_importing_it_alone_imports_no_jax(self):
    code = "import ctxseg_jax, sys; sys.exit('jax' in sys.modules)"
    self.assertEqual(subprocess.run([sys.executable, "-c", code]).returncode, 0)

  def test_a_finished_run_predicts_arrays(self):
    trained = ctxseg_jax.load(tiny.finished_run())
    self.assertEqual(trained.scores["step"], trained.step)
    self.assertGreater(trained.scores["miou"], 0.0)
    self.assertEqual(trained.config["model"]["head"]["name"], "encnet")
    images = [context_scenes.draw(0, i).image for i in range(3)]
    images[1] = images[1][:100, :90]
    maps = trained.predict(images)
    probabilities = trained.predict(images, probabilities=True)
    for image, found, chances in zip(images, maps, probabilities, strict=True):
      self.assertEqual(found.shape, image.shape[:2])
      np.testing.assert_array_equal(found, chances.argmax(-1))
      np.testing.assert_allclose(chances.sum(-1), 1.0, rtol=1e-5)

  def test_a_config_of_another_network_is_refused(self):
    workdir = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    shutil.copytree(tiny.finished_run(), workdir, dirs_exist_ok=True)
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    config["model"]["head"] = dict(name="pspnet", channels=8)
    path.write_text(json.dumps(config))
    with self.assertRaisesRegex(errors.UserError, "arrays differ.*head/"):
      ctxseg_jax.load(workdir)


if __name__ == "__main__":
  absltest.main()
